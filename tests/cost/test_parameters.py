"""Named numbers, their groups and their priors."""

import numpy as np
import pytest

from rackscale.cost import Parameters, draws, fitted, from_priors
from rackscale.cost.parameters import all_names, prior_centre_and_spread
from rackscale.cost.priors import GROUPS, PRIORS


def test_priors_are_their_centres_and_groups_change_nothing():
    priors = from_priors()
    assert priors["routing_skew"].tolist() == [[pytest.approx(PRIORS["routing_skew"].value)]]
    by = priors.by("expert_rate", np.array([0, 1, -1]), np.array([0, -1, -1]))
    assert by.tolist() == [[pytest.approx(PRIORS["expert_rate"].value)] * 3]


def test_a_group_has_a_factor_of_its_own_and_an_unknown_one_has_none():
    names = all_names()
    moved = np.zeros((2, len(names)))
    moved[1, names.index("host_step@trtllm")] = np.log(2.0)
    found = Parameters(names=names, moved=moved).by("host_step", np.array([0, 1, -1]))
    assert found.tolist() == [[1, 1, 1], [1, pytest.approx(2), 1]]


def test_what_may_be_negative_is_not_a_logarithm():
    names = all_names()
    moved = np.zeros((1, len(names)))
    moved[0, names.index("maturity")] = -0.5
    assert Parameters(names=names, moved=moved).by("maturity", 0).tolist() == [[-0.5]]


def test_unknown_names_are_errors():
    with pytest.raises(KeyError):
        from_priors()["warp_factor"]


def test_every_prior_says_what_it_is_and_where_it_is_from():
    for prior in PRIORS.values():
        assert prior.what
        assert prior.source
        assert prior.spread > 0
        assert bool(prior.by) == (prior.between > 0)
        assert set(prior.by) <= set(GROUPS)


def test_the_fit_lies_within_its_priors_reach_and_draws_around_it():
    centre, spread = prior_centre_and_spread(all_names())
    best = fitted().moved[0]
    assert np.all(np.abs(best - centre) < 5 * spread)
    posterior = draws().moved
    assert len(posterior) >= 20
    deviation = np.abs(posterior.mean(0) - best) / np.maximum(posterior.std(0), 1e-9)
    assert np.all(deviation < 1.5)
