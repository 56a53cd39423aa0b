"""What was looked up once is looked up no more, and is the same."""

import numpy as np
from planning import PRIORS

from rackscale.plan.search.remembered import Remembered


def test_values_are_those_of_the_parameters():
    remembered = Remembered.of(PRIORS)
    for members in (np.array([0]), np.array([1, -1, 0]), np.array([-1])):
        first = remembered.by("linear_bandwidth", members)
        assert np.array_equal(first, PRIORS.by("linear_bandwidth", members))
        assert remembered.by("linear_bandwidth", members.copy()) is first
    assert np.array_equal(remembered["routing_skew"], PRIORS["routing_skew"])
