"""Windows over a text, and the sum that comes of them."""

import pytest
import torch
from golden_ranks import GOLDEN, make_rank
from hypothesis import given
from hypothesis import strategies as st

from rackscale.checkpoint import open_checkpoint
from rackscale.runtime.score import score, windows


@given(num_tokens=st.integers(2, 300), size=st.integers(2, 64))
def test_windows_score_every_token_once_and_with_context(num_tokens, size):
    scored = []
    for window in windows(num_tokens, size):
        assert window.end - window.start <= size
        assert window.scored > window.start
        if window.start:
            assert window.scored - window.start == size // 2
        scored += range(window.scored, window.end)
    assert scored == list(range(1, num_tokens))


def test_windows_change_only_what_tokens_see():
    rank = make_rank(open_checkpoint(GOLDEN / "mixtral", tokenizer_required=False))
    tokens = torch.randint(0, 256, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    told = []
    whole = score(rank, tokens, size=80, progress=lambda done, total: told.append((done, total)))
    cut = score(rank, tokens, size=64)
    assert told == [(70, 70)]
    assert cut != whole
    assert cut == pytest.approx(whole, rel=0.1)
