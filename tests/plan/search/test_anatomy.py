"""Steps taken apart add up again."""

import numpy as np
import pytest
from planning import PRIORS, question

from rackscale.plan.search import evaluate, search
from rackscale.plan.search.anatomy import anatomy, step_seconds


@pytest.mark.parametrize("role", ["mixed", "disaggregated"])
def test_a_step_is_its_operators_and_the_host(role):
    asked = question(role=role)
    frontier = search(asked, PRIORS)
    one = frontier.take(np.array([len(frontier) // 2]))
    parts = anatomy(asked, one.deployments, float(one.utilisation[0]), PRIORS)
    tpot = parts.decode.seconds / parts.accepted + parts.stalled_s
    assert tpot == pytest.approx(one.tpot_s[0], rel=0.02)
    assert (parts.stalled_s > 0) == (role == "mixed")
    assert step_seconds(asked, one.deployments, float(one.deployments.sequences[0]), PRIORS) == pytest.approx(
        parts.decode.seconds
    )
    assert 0 < parts.decode.host_s < parts.decode.seconds
    assert 0 < parts.prefill.host_s < parts.prefill.seconds
    assert parts.decode.slowest >= 1


def test_a_served_prompt_lies_between_alone_and_among_others():
    asked = question(role="disaggregated")
    frontier = search(asked, PRIORS)
    one = frontier.take(np.array([0]))
    own = evaluate.prompts(asked, one.deployments.prefill, PRIORS, disaggregated=True)
    parts = anatomy(asked, one.deployments, 0.5, PRIORS)
    assert own.each[0] < parts.served_s < own.alone[0]
    assert parts.fits >= one.deployments.concurrency[0] * 0.5
