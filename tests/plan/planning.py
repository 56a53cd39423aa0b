"""Questions that are searched in no time."""

from rackscale.cost import from_priors
from rackscale.plan.question import Question
from rackscale.specs.catalog import load_model, load_system

PRIORS = from_priors()


def question(model="qwen3-30b-a3b", system="hgx-b200", **changes):
    given = {"isl": 1024, "osl": 256, "weights": "fp8", **changes}
    return Question(model=load_model(model), system=load_system(system), **given)
