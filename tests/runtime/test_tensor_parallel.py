"""Ranks that share an attention: sums with the same bits on all, and the same greedy tokens as one rank."""

import os
import signal
import time

import pytest
import torch
from golden_ranks import BLOCK, FAMILIES, GOLDEN, MAX_LEN, NATIVE_IS_BUILT
from hypothesis import given, settings
from hypothesis import strategies as st

from rackscale.checkpoint import open_checkpoint
from rackscale.core import RankLostError, Request, Sampling, SpecError
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.local import LocalOptions, open_local
from rackscale.specs import (
    ONE_RANK,
    GqaSpec,
    MlaSpec,
    PoolLayout,
    Role,
    lay_out,
    num_kv_copies,
    pools_of,
    share_heads,
)

pytestmark = pytest.mark.skipif(not NATIVE_IS_BUILT, reason="ranks share memory through the native part")

LENGTHS = (1, 19, 3, 40, 2)  # of prompts
SHARED_KEYS = [family for family in FAMILIES if family != "kimi_k2"]  # whose heads divide by 4


def requests(**sampling):
    return [
        Request(
            id=f"r{number}",
            prompt=tuple((number * 31 + 7 * at) % 90 + 2 for at in range(length)),
            max_tokens=5 + number,
            sampling=Sampling(**{"temperature": 0.0, **sampling}),
        )
        for number, length in enumerate(LENGTHS)
    ]


def outputs(family, layout, sampling=None, **changes):
    options = LocalOptions(
        **{
            "layout": layout,
            "max_model_len": MAX_LEN,
            "kv_gib": 0.05,
            "block_size": BLOCK,
            "max_batched_tokens": 16,
            "max_running": 3,
            "tokenizer_required": False,
            **changes,
        }
    )
    with open_local(GOLDEN / family, options) as local:
        done = local.driver.run(requests(**sampling or {}))
    return {name: completion.token_ids for name, completion in done.items()}


@pytest.fixture(scope="module")
def alone():
    known = {}

    def of(family):
        if family not in known:
            known[family] = outputs(family, ONE_RANK)
        return known[family]

    return of


@pytest.fixture
def _all_move(monkeypatch):
    """Even short prompts are prefilled by the pool that only prefills."""
    monkeypatch.setattr("rackscale.policy.pools.UNKNOWN_TOKENS", 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_one_group(family, num_ranks, alone):
    assert outputs(family, (PoolLayout(num_ranks=num_ranks, tp=2),)) == alone(family)


@pytest.mark.parametrize("family", SHARED_KEYS)
def test_more_members_than_heads_of_keys(family, alone):
    assert outputs(family, (PoolLayout(num_ranks=4, tp=4),)) == alone(family)


@pytest.mark.usefixtures("_all_move")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("tp", "decode_tp"), [(2, 1), (1, 2)])
def test_pools_that_differ(family, tp, decode_tp, alone):
    layout = (
        PoolLayout(role=Role.PREFILL, num_ranks=tp, tp=tp),
        PoolLayout(role=Role.DECODE, num_ranks=decode_tp, tp=decode_tp),
    )
    assert outputs(family, layout) == alone(family)


@pytest.mark.usefixtures("_all_move")
@pytest.mark.parametrize(("tp", "decode_tp"), [(4, 2), (2, 4)])
def test_keys_that_several_have(tp, decode_tp, alone):
    layout = (
        PoolLayout(role=Role.PREFILL, num_ranks=tp, tp=tp),
        PoolLayout(role=Role.DECODE, num_ranks=decode_tp, tp=decode_tp),
    )
    assert outputs("gpt_oss", layout) == alone("gpt_oss")


@pytest.mark.parametrize("family", ["deepseek_v3", "olmoe"])
def test_other_kernels(family, alone):
    layout = (PoolLayout(num_ranks=2, tp=2),)
    assert outputs(family, layout, kernels="reference") == alone(family)


def test_members_draw_alike():
    sampling = {"temperature": 0.8, "seed": 5}
    layout = (PoolLayout(num_ranks=2, tp=2),)
    assert outputs("qwen3_moe", layout, sampling) == outputs("qwen3_moe", ONE_RANK, sampling)


def test_bf16():
    layout = (PoolLayout(num_ranks=2, tp=2),)
    lengths = [len(tokens) for tokens in outputs("olmoe", layout, activations="bf16").values()]
    assert lengths == [5 + number for number in range(len(LENGTHS))]


def test_heads_must_divide():
    layout = (PoolLayout(num_ranks=4, tp=4),)
    with pytest.raises(SpecError, match="tp 4 does not divide the model's 2 attention heads"):
        outputs("kimi_k2", layout)
    with pytest.raises(SpecError, match="tp 3 does not divide the model's 4 attention heads"):
        outputs("olmoe", (PoolLayout(num_ranks=3, tp=3),))
    six = GqaSpec(num_heads=12, num_kv_heads=6, head_dim=8)
    with pytest.raises(SpecError, match="tp 4 and the model's 6 heads of keys do not divide each other"):
        share_heads(six, 4)


@given(
    queries=st.integers(1, 4),
    keys=st.sampled_from([1, 2, 3, 4, 8]),
    tp=st.sampled_from([1, 2, 3, 4, 8]),
)
def test_members_have_all_heads(queries, keys, tp):
    spec = GqaSpec(num_heads=keys * queries, num_kv_heads=keys, head_dim=8)
    try:
        shares = [share_heads(spec, tp, member) for member in range(tp)]
    except SpecError:
        return
    assert [head for share in shares for head in range(*share.queries)] == list(range(spec.num_heads))
    pushed = [head for share in shares if share.copy == 0 for head in range(*share.cached)]
    assert pushed == list(range(keys))
    assert sum(share.cached.size for share in shares) == keys * num_kv_copies(spec, tp)
    for share in shares:
        each = share.queries.size // share.cached.size
        for head in range(*share.queries):
            assert share.cached.start + (head - share.queries.start) // each == head // queries


def test_latents_are_on_all_members():
    spec = MlaSpec(
        num_heads=4, q_lora_rank=None, kv_lora_rank=8, nope_head_dim=8, rope_head_dim=4, v_head_dim=8
    )
    shares = [share_heads(spec, 4, member) for member in range(4)]
    assert [share.copy for share in shares] == [0, 1, 2, 3]
    assert {share.cached for share in shares} == {(0, 1)}


def test_copies_count_as_memory():
    model = open_checkpoint(GOLDEN / "deepseek_v3", tokenizer_required=False).spec
    one, two = (
        lay_out(model, name="m", layout=(PoolLayout(num_ranks=tp, tp=tp),), kv_gib=0.01) for tp in (1, 2)
    )
    assert two.groups[0].num_blocks == one.groups[0].num_blocks // 2


@pytest.mark.parametrize(
    ("given_options", "layout"),
    [
        ({"tp": 2}, (PoolLayout(num_ranks=2, tp=2),)),
        ({"mixed": 4, "tp": 2}, (PoolLayout(num_ranks=4, tp=2),)),
        (
            {"prefill": 2, "decode": 3, "tp": 2},
            (PoolLayout(role=Role.PREFILL, num_ranks=2, tp=2), PoolLayout(role=Role.DECODE, num_ranks=3)),
        ),
    ],
)
def test_on_the_command_line(given_options, layout):
    assert pools_of(**{"mixed": None, "prefill": None, "decode": None, **given_options}) == layout


@pytest.mark.parametrize(
    ("given_options", "what"),
    [
        ({"mixed": 3, "tp": 2}, "--tp 2 does not divide --mixed 3"),
        ({"prefill": 3, "decode": 2, "tp": 2}, "--tp 2 does not divide --prefill 3"),
        ({"tp": 0}, "--tp is 0"),
    ],
)
def test_refused_on_the_command_line(given_options, what):
    with pytest.raises(SpecError, match=what):
        pools_of(**{"mixed": None, "prefill": None, "decode": None, **given_options})


PIECE = 16  # floats; most sums go in several


def member(index, heap, limit_s=30.0):
    from rackscale.runtime.comm.shared_team import SharedTeam  # noqa: PLC0415 (needs C++)

    return SharedTeam(index, heap.addresses, piece=PIECE, spin_s=0.0, limit_s=limit_s)


def make_heap(size):
    from rackscale.runtime.comm.shared_team import team_bytes  # noqa: PLC0415 (needs C++)

    return Heap(size, team_bytes(PIECE))


def forked(work):
    """The process id of a child that does the work and ends with status 0, or 1 if that raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def parts_of(seed, size, counts):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(count, 3, generator=generator) for _ in range(size)] for count in counts]


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(2, 4),
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_all_reduce(size, counts, seed):
    heap, parts = make_heap(size), parts_of(seed, size, counts)

    def work(index):
        team = member(index, heap)
        for of_members in parts:
            total = of_members[0].clone()
            for part in of_members[1:]:
                total += part
            assert torch.equal(team.all_reduce(of_members[index].clone()), total)
        assert team.take_times().num_bytes == sum(counts) * 3 * 4 * (size - 1)

    children = [forked(lambda index=index: work(index)) for index in range(1, size)]
    work(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)


def test_a_dead_member_is_noticed():
    heap = make_heap(3)
    idle = forked(lambda: member(1, heap).all_reduce(torch.ones(4)))
    dead = forked(lambda: time.sleep(60))
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
    start = time.monotonic()
    with pytest.raises(RankLostError, match="member 0 waited in vain for its team in round 1"):
        member(0, heap, limit_s=0.3).all_reduce(torch.ones(4))
    assert time.monotonic() - start < 5
    os.kill(idle, signal.SIGKILL)
    os.waitpid(idle, 0)


def test_nonsense_is_noticed():
    heap = make_heap(2)
    other = forked(lambda: member(1, heap).all_reduce(torch.ones(5)))
    with pytest.raises(RankLostError, match="shared memory is corrupt: the part of member 1"):
        member(0, heap).all_reduce(torch.ones(4))
    os.waitpid(other, 0)
