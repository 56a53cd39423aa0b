"""Which work enters the next step.

`num_computed` says how far a sequence's KV reaches into its tokens. A step closes gaps under a token
budget: decode is a gap of one, prefill a gap of many. There is no other phase. Gaps of one go first, since
somebody is waiting for each of them; what is left of the budget goes to the other gaps in order.
"""

import numpy as np

from rackscale.core import IntColumn, Seconds

SECONDS_PER_PRIORITY = 10.0


def importance(priority: int, arrived: Seconds) -> float:
    """Lower goes first, and is preempted last.

    One step of priority is worth ten seconds of waiting, so nothing waits for ever behind a stream of
    more urgent requests.
    """
    return arrived + SECONDS_PER_PRIORITY * priority


def fill_step(gaps: IntColumn, budget: int) -> IntColumn:
    """How many tokens of each gap enter the step: at most the gap each, at most the budget in all.

    gaps: by importance, at least 0 each. A budget of at least the number of gaps of one closes them all.
    """
    if int(gaps.sum()) <= budget:
        return gaps
    ones = gaps == 1
    left = max(0, budget - int(np.count_nonzero(ones)))
    wanted = np.where(ones, 0, gaps)
    before = np.cumsum(wanted) - wanted
    chunks = np.clip(left - before, 0, wanted)
    closed = ones & (np.cumsum(ones) <= budget)
    num_new: IntColumn = np.where(ones, closed, chunks).astype(np.int32)
    return num_new
