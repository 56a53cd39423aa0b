"""The filtered distribution against a slow oracle in plain Python."""

import math

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rackscale.runtime.sampling.filters import filtered_probs, nucleus_edge, nucleus_edge_by_row
from rackscale.runtime.sampling.rows import FilterColumns

# On a grid, so that float32 tells apart what is not equal; equals are then frequent.
logits = st.integers(-80, 80).map(lambda i: i / 8)
temperatures = st.sampled_from([0.25, 0.5, 1.0, 1.5, 4.0])
shares = st.floats(1 / 64, 1.0, width=32)
min_shares = st.floats(0.0, 1.0, width=32)
MARGIN = 1e-5  # nearer to an edge, rounding decides


def oracle(
    values: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> dict[int, float] | None:
    """Token -> probability, as the module says it in words; None where rounding would decide."""
    kept = [t for t, v in enumerate(values) if sum(w > v for w in values) < top_k]
    most = max(values)
    weight = {t: math.exp((values[t] - most) / temperature) for t in kept}
    whole = sum(weight.values())
    prob = {t: w / whole for t, w in weight.items()}
    above = {t: sum(q for q in prob.values() if q > p) for t, p in prob.items()}
    if top_p < 1.0 and any(abs(mass - top_p) < MARGIN for mass in above.values()):
        return None
    nucleus = {t: p for t, p in prob.items() if top_p == 1.0 or above[t] < top_p}
    edge = min_p * max(nucleus.values())
    if any(abs(p - edge) < MARGIN * p for p in nucleus.values()) and 0.0 < min_p < 1.0:
        return None
    final = {t: p for t, p in nucleus.items() if p >= edge * (1 - 1e-9)}
    return {t: p / sum(final.values()) for t, p in final.items()}


def columns(
    temperature: list[float], top_k: list[int], top_p: list[float], min_p: list[float]
) -> FilterColumns:
    return FilterColumns(
        temperature=np.array(temperature, np.float32),
        top_k=np.array(top_k, np.int32),
        top_p=np.array(top_p, np.float32),
        min_p=np.array(min_p, np.float32),
    )


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_filters_agree_with_the_oracle(data: st.DataObject) -> None:
    vocab = data.draw(st.integers(2, 70))
    num_rows = data.draw(st.integers(1, 4))
    rows = [data.draw(st.lists(logits, min_size=vocab, max_size=vocab)) for _ in range(num_rows)]
    params = [
        (
            data.draw(temperatures),
            data.draw(st.integers(1, vocab)),
            data.draw(st.one_of(st.just(1.0), shares)),
            data.draw(st.one_of(st.just(0.0), min_shares)),
        )
        for _ in rows
    ]
    expected = [oracle(row, *each) for row, each in zip(rows, params, strict=True)]
    assume(all(row is not None for row in expected))
    weights = filtered_probs(torch.tensor(rows), columns(*map(list, zip(*params, strict=True))))
    for row, wanted in zip(weights.double(), expected, strict=True):
        assert wanted is not None
        assert torch.nonzero(row)[:, 0].tolist() == sorted(wanted)
        probs = (row / row.sum()).tolist()
        assert all(math.isclose(probs[t], p, rel_tol=1e-5) for t, p in wanted.items())


@given(
    st.lists(st.lists(logits, min_size=40, max_size=40), min_size=1, max_size=5),
    st.lists(shares.filter(lambda p: p < 1.0), min_size=5, max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_both_nucleus_searches_agree(rows: list[list[float]], top_p: list[float]) -> None:
    probs = torch.tensor(rows).softmax(-1)
    share = torch.tensor(top_p[: len(rows)], dtype=torch.float32)[:, None]
    assert torch.equal(nucleus_edge(probs, share), nucleus_edge_by_row(probs, share))


def test_a_nucleus_that_is_just_full_takes_no_more() -> None:
    probs = torch.tensor([[0.25, 0.5, 0.25]])
    for search in (nucleus_edge, nucleus_edge_by_row):
        assert search(probs, torch.tensor([[0.5]])).item() == 0.5
        assert search(probs, torch.tensor([[0.5001]])).item() == 0.25


def test_a_flat_wide_row_keeps_its_share() -> None:
    probs = torch.full((1, 5000), 1 / 5000) * torch.linspace(1.001, 0.999, 5000)
    probs /= probs.sum()
    for search in (nucleus_edge, nucleus_edge_by_row):
        kept = probs[probs >= search(probs, torch.tensor([[0.9]]))]
        assert 0.9 <= kept.sum() <= 0.9 + 2 / 5000


def test_rows_without_a_filter_keep_every_token() -> None:
    row = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    weights = filtered_probs(row, columns([1.0] * 3, [200, 5, 200], [1.0, 1.0, 0.5], [0.0] * 3))
    assert torch.equal(weights[0], row[0].softmax(-1))
    assert int((weights[1] > 0).sum()) == 5
    assert int((weights[2] > 0).sum()) < 200


def test_a_large_top_k_takes_the_same_tokens_as_a_sort() -> None:
    row = torch.randn(2, 3000, generator=torch.Generator().manual_seed(2))
    weights = filtered_probs(row, columns([1.0] * 2, [2000, 3], [1.0] * 2, [0.0] * 2))
    best = row[0].sort(descending=True).indices[:2000]
    assert set(torch.nonzero(weights[0])[:, 0].tolist()) == set(best.tolist())
    assert int((weights[1] > 0).sum()) == 3
