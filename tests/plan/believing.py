"""Beliefs that no fit has a say in: priors, a few draws about them, and a noise that is known."""

from dataclasses import replace

import numpy as np
from planning import PRIORS

from rackscale.cost.parameters import prior_centre_and_spread
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.interval import Noise, NoiseTable
from rackscale.plan.metrics import METRICS

NUM_DRAWS = 4


def beliefs(systems=("h200", "b200", "gb200"), noise=0.1):
    centre, spread = prior_centre_and_spread(PRIORS.names)
    deviations = 0.1 * np.random.default_rng(0).standard_normal((NUM_DRAWS, len(centre)))
    table = {name: Noise(low=noise, high=noise) for name in METRICS}
    regimes = ("one node", "several nodes", "new system")
    return Beliefs(
        best=PRIORS,
        draws=replace(PRIORS, moved=centre + spread * deviations),
        noise=NoiseTable(table=dict.fromkeys(regimes, table), systems=frozenset(systems), fitted_to=""),
    )


BELIEFS = beliefs()
