"""How many ranks a token goes to, against tokens drawn one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cost.collectives import Exchange
from rackscale.cost.collectives.destinations import destinations

EXPERTS, TOKENS = 256, 4000


def exchange(top_k=8.0, **changes):
    return Exchange(ranks=1.0, tokens_per_rank=1.0, hidden=1.0, top_k=top_k, **changes)


def drawn(places, *, groups=1, groups_per_token=1, top_k=8):
    random = np.random.default_rng(0)
    reached = []
    for _ in range(TOKENS):
        chosen = random.permutation(groups)[:groups_per_token]
        allowed = np.flatnonzero(np.isin(np.arange(EXPERTS) * groups // EXPERTS, chosen))
        experts = random.choice(allowed, top_k, replace=False)
        reached.append(len(np.unique(experts * places // EXPERTS)))
    return np.mean(reached)


@pytest.mark.parametrize("places", [1, 2, 4, 8, 32, 64])
def test_experts_from_everywhere(places):
    assert destinations(exchange(), float(places)) == pytest.approx(drawn(places), rel=0.04)


@pytest.mark.parametrize("places", [2, 4, 8, 16, 64])
def test_experts_from_some_groups(places):
    found = destinations(exchange(groups=8, groups_per_token=4), float(places))
    assert found == pytest.approx(drawn(places, groups=8, groups_per_token=4), rel=0.08)


@given(st.integers(1, 576), st.integers(1, 16))
def test_no_more_than_there_are(places, top_k):
    for balanced in (False, True):
        found = destinations(exchange(float(top_k), balanced=balanced), float(places))
        assert 1 - 1e-9 <= found <= min(places, top_k) + 1e-9
    assert found == min(places, top_k)
