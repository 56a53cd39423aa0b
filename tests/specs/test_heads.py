"""Who of a team has which heads."""

import pytest

from rackscale.core import SpecError
from rackscale.specs import GqaSpec, MlaSpec
from rackscale.specs.heads import Span, num_kv_copies, share_heads

MLA = MlaSpec(num_heads=8, q_lora_rank=None, kv_lora_rank=16, nope_head_dim=8, rope_head_dim=4, v_head_dim=8)


def gqa(heads, key_heads):
    return GqaSpec(num_heads=heads, num_kv_heads=key_heads, head_dim=8)


def test_spans():
    assert Span(2, 5).size == 3
    assert Span(2, 5).scaled(4) == (8, 20)
    assert Span(2, 5).moved(10) == (12, 15)


@pytest.mark.parametrize("attention", [MLA, gqa(8, 8), gqa(8, 4), gqa(8, 2), gqa(8, 1)])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_every_head_has_its_member(attention, tp):
    shares = [share_heads(attention, tp, member) for member in range(tp)]
    queries = [head for share in shares for head in range(*share.queries)]
    assert queries == list(range(8))
    cached = 1 if attention is MLA else attention.num_kv_heads
    for share in shares:  # a member has the keys of all of its queries, and of no others
        wanted = {head * cached // 8 for head in range(*share.queries)}
        assert wanted == set(range(*share.cached))
    copies = num_kv_copies(attention, tp)
    owners = [(head, share.copy) for share in shares for head in range(*share.cached)]
    assert sorted(owners) == [(head, copy) for head in range(cached) for copy in range(copies)]


@pytest.mark.parametrize(
    ("attention", "tp", "what"),
    [
        (MLA, 3, "tp 3 does not divide the model's 8 attention heads"),
        (gqa(12, 3), 2, "tp 2 and the model's 3 heads of keys"),
    ],
)
def test_heads_that_do_not_divide(attention, tp, what):
    with pytest.raises(SpecError, match=what):
        share_heads(attention, tp)
