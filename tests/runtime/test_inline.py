"""Engine and rank in one process."""

import itertools

import pytest
from golden_ranks import BLOCK, GOLDEN, MAX_LEN, NUM_BLOCKS, make_rank

from rackscale.checkpoint import open_checkpoint
from rackscale.core import CapacityError, FinishReason, Request, Sampling, SpecError
from rackscale.engine import build
from rackscale.runtime.inline import InlineDriver, OneRank
from rackscale.specs import DeploymentSpec, GroupSpec


@pytest.fixture(scope="module")
def checkpoint():
    return open_checkpoint(GOLDEN / "mixtral", tokenizer_required=False)


def driver_over(checkpoint, **changes):
    sizes = {"num_blocks": NUM_BLOCKS, "max_running": 4, "max_batched_tokens": 32, **changes}
    max_waiting = sizes.pop("max_waiting", 8)
    deployment = DeploymentSpec(
        model="golden",
        groups=(GroupSpec(**sizes),),
        block_size=BLOCK,
        max_model_len=MAX_LEN,
        max_waiting=max_waiting,
    )
    ticks = itertools.count()
    return InlineDriver(build(deployment), OneRank(make_rank(checkpoint)), lambda: float(next(ticks)))


def request(name, prompt=(1, 2, 3), max_tokens=6, stop=(), **sampling):
    return Request(
        id=name,
        prompt=tuple(prompt),
        max_tokens=max_tokens,
        stop_token_ids=tuple(stop),
        sampling=Sampling(**{"temperature": 0.0, **sampling}),
    )


def test_a_completion_says_what_came_and_when(checkpoint):
    done = driver_over(checkpoint).run([request("a")])["a"]
    assert len(done.token_ids) == len(done.times_s) == 6
    assert done.arrived_s < done.times_s[0]
    assert done.times_s == sorted(done.times_s)
    assert done.reason == FinishReason.LENGTH
    assert done.finish.num_output == 6
    assert done.logprobs == []


def test_a_stop_token_ends_it(checkpoint):
    tokens = driver_over(checkpoint).run([request("a")])["a"].token_ids
    at = tokens.index(tokens[2])
    done = driver_over(checkpoint).run([request("a", stop=[tokens[2]])])["a"]
    assert done.token_ids == tokens[: at + 1]
    assert done.reason == FinishReason.STOP


def test_logprobs_go_to_whom_they_belong(checkpoint):
    asked = [request("plain"), request("two", prompt=[9, 8], num_logprobs=2), request("none", num_logprobs=0)]
    done = driver_over(checkpoint).run(asked)
    assert done["plain"].logprobs == []
    assert [entry.top[0][0] for entry in done["two"].logprobs] == done["two"].token_ids
    assert all(len(entry.top) == 2 for entry in done["two"].logprobs)
    assert [entry.top for entry in done["none"].logprobs] == [()] * 6
    alone = driver_over(checkpoint).run([request("two", prompt=[9, 8], num_logprobs=2)])["two"]
    for together, single in zip(done["two"].logprobs, alone.logprobs, strict=True):
        assert together.logprob == pytest.approx(single.logprob, abs=1e-5)


def test_more_requests_than_rows_and_blocks(checkpoint):
    """They wait and are preempted, and each gives what it gives alone."""
    asked = [request(f"r{n}", prompt=range(1, 12 + n), max_tokens=20) for n in range(9)]
    tight = driver_over(checkpoint, num_blocks=MAX_LEN // BLOCK + 2, max_batched_tokens=16)
    done = tight.run(asked)
    for one in asked:
        alone = driver_over(checkpoint).run([one])[one.id]
        assert done[one.id].token_ids == alone.token_ids


def test_what_can_never_run_is_refused(checkpoint):
    with pytest.raises(SpecError):
        driver_over(checkpoint).run([request("long", prompt=[1] * (MAX_LEN + 1))])


def test_a_full_queue_is_refused(checkpoint):
    with pytest.raises(CapacityError):
        driver_over(checkpoint, max_waiting=1, max_running=1).run([request(f"r{n}") for n in range(9)])
