"""Questions that are searched in no time, and what is believed without a fit."""

import numpy as np

from rackscale.cost import Parameters, from_priors
from rackscale.cost.parameters import prior_centre_and_spread
from rackscale.plan.beliefs import Beliefs
from rackscale.plan.interval import Noise, NoiseTable
from rackscale.plan.metrics import METRICS
from rackscale.plan.question import Question
from rackscale.specs.catalog import load_model, load_system

PRIORS = from_priors()


SMALL = "qwen3-30b-a3b"


def question(model=SMALL, system="hgx-b200", **changes):
    chips = 4 if model == SMALL else None
    given = {"isl": 1024, "osl": 256, "weights": "fp8", "chips": chips, **changes}
    return Question(model=load_model(model), system=load_system(system), **given)


def beliefs(draws=4, spread=0.2):
    """Priors, draws of a part of their spread, and 10 % of noise."""
    centre, deviation = prior_centre_and_spread(PRIORS.names)
    steps = np.random.Generator(np.random.PCG64(3)).standard_normal((draws, len(centre)))
    noise = dict.fromkeys(METRICS, Noise(low=0.1, high=0.1))
    regimes = ("one node", "several nodes", "new system")
    return Beliefs(
        best=PRIORS,
        draws=Parameters(names=PRIORS.names, moved=centre + spread * deviation * steps),
        noise=NoiseTable(table=dict.fromkeys(regimes, noise), systems=frozenset({"b200"}), fitted_to=""),
    )
