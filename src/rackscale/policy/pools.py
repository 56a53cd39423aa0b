"""Which pool prefills a prompt, and when a group does the other pool's work as well.

Two things decide, both measured: who has the first token sooner, and what the running users of the decode
pool would feel. A prompt may make their step at most twice as long as it is without.
"""

from rackscale.policy.step_costs import StepCosts

UNKNOWN_TOKENS = 64  # before anything is measured: about what a step of decodes can hide
QUEUE_STEPS_TO_HELP = 16  # steps of the decode pool that a queued prompt may wait before it helps out
QUEUE_STEPS_TO_STOP = 4  # and below which it has helped enough


def local_limit(decode: StepCosts) -> int:
    """How many tokens of a prompt the decode pool takes in one step without making it twice as long."""
    if not decode.known or decode.per_token_s == 0:
        return UNKNOWN_TOKENS
    return int(decode.base_s / decode.per_token_s)


def prefill_at_decode(num_uncached: int, decode: StepCosts, prefill: StepCosts, num_queued: int) -> bool:
    """Whether the decode pool computes the `num_uncached` tokens of a prompt that it lacks.

    num_queued: prompt tokens in front of it at the prefill pool.
    """
    if num_uncached > local_limit(decode):
        return False
    here_s = decode.base_s + num_uncached * decode.per_token_s
    there_s = prefill.base_s + (num_queued + num_uncached) * prefill.per_token_s + decode.base_s
    return not (decode.known and prefill.known) or here_s <= there_s


def helps_out(*, helping: bool, queued_s: float, step_s: float) -> bool:
    """Whether a group of the decode pool takes any prompt, as a mixed one does, while prompts wait long.

    helping: whether it does now. queued_s: how long the prefill pool needs for the prompts that wait. step_s:
    the base of the group's steps; 0: not measured yet.
    """
    enough = QUEUE_STEPS_TO_STOP if helping else QUEUE_STEPS_TO_HELP
    return step_s > 0 and queued_s > enough * step_s
