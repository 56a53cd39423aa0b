"""Random histories: whatever happens, no block leaks and every request ends once, with its own tokens."""

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from world import World, small

from rackscale.core import Arrive, Finish, FinishReason, RefuseReason
from rackscale.engine import replay
from rackscale.specs import Role

MAX_LEN = 40
PHASES = (
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
)  # shrinking takes minutes; ask for it where it is needed
MAX_WAITING = 6
PREFIXES = ((), (0, 1, 2, 3) * 2, (0, 1, 2, 3) * 5)  # so that prompts share whole blocks


class EngineMachine(RuleBasedStateMachine):
    """Blocks are scarce: few sequences of full length fit, so preemption is common."""

    deployment = small(num_blocks=12, max_batched_tokens=8, max_waiting=MAX_WAITING)

    def __init__(self):
        super().__init__()
        self.world = World(self.deployment)

    @rule(
        prefix=st.sampled_from(PREFIXES),
        prompt=st.lists(st.integers(0, 1), max_size=MAX_LEN),
        max_tokens=st.integers(0, 12),
        min_tokens=st.integers(0, 3),
        stops=st.sampled_from([(), (3,), (3, 4)]),
        priority=st.integers(-1, 1),
        num_choices=st.integers(1, 3),
    )
    def arrive(self, prefix, prompt, max_tokens, min_tokens, stops, priority, num_choices):
        leader = f"r{len(self.world.requests)}"
        for choice in range(num_choices):
            name = f"r{len(self.world.requests)}"
            waiting = self.world.engine.num_waiting
            self.world.arrive(
                name,
                prefix + tuple(prompt),
                max_tokens,
                min_tokens=min_tokens,
                stop_token_ids=stops,
                priority=priority,
                sibling_of=leader if choice else None,
            )
            valid = 0 < len(prefix) + len(prompt) < MAX_LEN and max_tokens
            end = self.world.ended.get(name)
            if not valid:
                assert end.reason is RefuseReason.INVALID
            elif waiting >= MAX_WAITING:
                assert end.reason is RefuseReason.QUEUE_FULL
            else:
                assert end is None

    def living(self):
        return [name for name in self.world.requests if name not in self.world.ended]

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def arrive_under_an_id_in_use(self, data):
        living = data.draw(st.sampled_from(self.living()))
        refusal, *_ = self.world.feed(Arrive(request=self.world.requests[living]))
        del self.world.ended[living]  # the refusal is not its end
        assert refusal.reason is RefuseReason.INVALID

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(sorted(self.world.requests)))
        end = self.world.ended.get(name)
        self.world.cancel(name)
        if end is None:
            assert self.world.ended[name].reason is FinishReason.CANCELLED
        else:
            assert self.world.ended[name] is end

    @precondition(lambda self: any(self.world.flights))
    @rule(data=st.data(), times=st.integers(1, 4), loses_pushes=st.booleans())
    def step(self, data, times, loses_pushes):
        group = data.draw(st.sampled_from([g for g, flights in enumerate(self.world.flights) if flights]))
        for _ in range(times):
            if self.world.flights[group]:
                self.world.step(group, loses_pushes=loses_pushes)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds):
        self.world.now += seconds

    @rule(data=st.data())
    def lose_a_rank(self, data):
        group = data.draw(st.integers(0, len(self.deployment.groups) - 1))
        self.world.lose(group, data.draw(st.integers(0, self.deployment.groups[group].num_ranks - 1)))

    @precondition(lambda self: self.world.lost)
    @rule(data=st.data())
    def join(self, data):
        self.world.join(*data.draw(st.sampled_from(sorted(self.world.lost))))

    def teardown(self):
        for group, rank in sorted(self.world.lost):
            self.world.join(group, rank)
        # Each step brings the most important sequence on by a token at least.
        self.world.run(max_steps=2 * MAX_LEN * len(self.world.requests) + 1)
        assert self.living() == [], "a request starves"
        for stats in self.world.engine.stats().groups:
            assert stats.num_running == stats.num_waiting == stats.num_owned_blocks == 0
        for name, end in self.world.ended.items():
            if isinstance(end, Finish):
                self.check_output(name, end)
        report = replay(self.world.log)
        assert report.same
        assert report.events == len(self.world.log) - 1

    def check_output(self, name, end):
        output, expected = self.world.output[name], self.world.expected_output(name)
        assert end.num_output == len(output)
        assert end.num_cached <= end.num_prompt == len(self.world.requests[name].prompt)
        if end.reason is FinishReason.CANCELLED:
            assert output == expected[: len(output)]
            assert len(output) < len(expected)
        else:
            assert output == expected
            stops = self.world.requests[name].stop_token_ids
            stopped = output[-1] in stops and len(output) > self.world.requests[name].min_tokens
            assert end.reason is (FinishReason.STOP if stopped else FinishReason.LENGTH)


class OneInFlight(EngineMachine):
    deployment = small(num_blocks=10, max_batched_tokens=3, max_waiting=MAX_WAITING, max_in_flight=1)


class ThreeInFlight(EngineMachine):
    deployment = small(
        num_blocks=14, max_running=5, max_batched_tokens=11, max_waiting=MAX_WAITING, max_in_flight=3
    )


class TwoRanks(EngineMachine):
    deployment = small(num_ranks=2, num_blocks=12, max_batched_tokens=8, max_waiting=MAX_WAITING)


class FourRanks(EngineMachine):
    deployment = small(
        num_ranks=4, num_blocks=10, max_running=2, max_batched_tokens=8, max_waiting=MAX_WAITING
    )


class ThreeGroupsOfTwo(EngineMachine):
    deployment = small(
        groups=3, num_ranks=2, num_blocks=10, max_running=2, max_batched_tokens=8, max_waiting=MAX_WAITING
    )


PREFILL, DECODE, MIXED = {"role": Role.PREFILL}, {"role": Role.DECODE}, {"role": Role.MIXED}


class PrefillAndDecode(EngineMachine):
    deployment = small(pools=(PREFILL, DECODE), num_blocks=12, max_batched_tokens=8, max_waiting=MAX_WAITING)


class PoolsOfDifferentWidths(EngineMachine):
    deployment = small(
        pools=(
            {**PREFILL, "num_ranks": 2, "num_blocks": 11, "max_batched_tokens": 5},
            {**DECODE, "num_ranks": 3, "max_running": 2},
        ),
        num_blocks=12,
        max_batched_tokens=8,
        max_waiting=MAX_WAITING,
        max_in_flight=3,
    )


class EveryRole(EngineMachine):
    deployment = small(
        pools=(PREFILL, DECODE, PREFILL, DECODE, MIXED),
        num_blocks=10,
        max_running=2,
        max_batched_tokens=4,
        max_waiting=MAX_WAITING,
    )


@pytest.fixture(autouse=True)
def everything_is_prefilled_apart(monkeypatch):
    """But for what the fitted costs say: prompts here are shorter than any that would be worth a move."""
    monkeypatch.setattr("rackscale.policy.pools.UNKNOWN_TOKENS", 2)


@pytest.mark.parametrize(
    "machine",
    [
        EngineMachine,
        OneInFlight,
        ThreeInFlight,
        TwoRanks,
        FourRanks,
        ThreeGroupsOfTwo,
        PrefillAndDecode,
        PoolsOfDifferentWidths,
        EveryRole,
    ],
)
def test_histories(machine):
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=40, deadline=None, phases=PHASES)
    )
