"""Steps taken apart add up again."""

import numpy as np
import pytest
from planning import PRIORS, question

from rackscale.plan.search import search
from rackscale.plan.search.anatomy import anatomy


@pytest.mark.parametrize("role", ["mixed", "disaggregated"])
def test_a_step_is_its_operators_and_the_host(role):
    asked = question(role=role)
    frontier = search(asked, PRIORS)
    one = frontier.take(np.array([len(frontier) // 2]))
    parts = anatomy(asked, one.deployments, one.utilisation, one.deployments.sequences, PRIORS)
    tpot = parts.decode.seconds / parts.accepted + parts.stalled_s
    assert tpot == pytest.approx(one.tpot_s, rel=0.02)
    assert (parts.stalled_s[0] > 0) == (role == "mixed")
    assert parts.fuller_s == pytest.approx(parts.decode.seconds)
    assert 0 < parts.decode.host_s[0] < parts.decode.seconds[0]
    assert 0 < parts.prefill.host_s[0] < parts.prefill.seconds[0]
    assert parts.decode.slowest[0] >= 1


def test_rows_are_taken_apart_as_one_is():
    asked = question()
    frontier = search(asked, PRIORS)
    more = frontier.deployments.sequences * 1.1
    whole = anatomy(asked, frontier.deployments, frontier.utilisation, more, PRIORS)
    for row in range(0, len(frontier), 7):
        one = frontier.take(np.array([row]))
        alone = anatomy(asked, one.deployments, one.utilisation, more[[row]], PRIORS)
        assert alone.fuller_s[0] == pytest.approx(whole.fuller_s[row])
        assert alone.decode.factor[0] == pytest.approx(whole.decode.factor[row])
        assert alone.prefill.seconds[0] == pytest.approx(whole.prefill.seconds[row])


def test_a_prompt_stalls_others_the_longer_the_less_busy_prefill_is():
    asked = question(role="mixed")
    frontier = search(asked, PRIORS)
    one = frontier.take(np.array([0]))
    held = one.deployments.sequences
    idle, busy = (anatomy(asked, one.deployments, np.array([share]), held, PRIORS) for share in (0.1, 0.9))
    assert busy.stalled_s[0] < idle.stalled_s[0]
    assert busy.fits[0] >= held[0]
