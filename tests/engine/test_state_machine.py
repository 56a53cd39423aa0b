"""Random histories: whatever happens, no block leaks and every request ends once, with its own tokens."""

from collections import deque

import pytest
from fake_rank import FakeRank
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rackscale.core import (
    Arrive,
    Cancel,
    Emit,
    Finish,
    FinishReason,
    GroupId,
    RankId,
    RankJoined,
    RankLost,
    Refuse,
    Request,
    RequestId,
    RunStep,
    Seconds,
    StepDone,
    encode_json,
)
from rackscale.engine import build, entry_line, header_line, replay
from rackscale.specs import DeploymentSpec, GroupSpec

STOP = 3
VOCAB = 6
BLOCK = 4
MAX_LEN = 40


def draw(request, position):
    """A token that depends on the sequence alone, as a seeded sample does."""
    return (sum(map(ord, request)) * 31 + position * 7) % VOCAB


class EngineMachine(RuleBasedStateMachine):
    """An engine, a twin that must say the same, and fake ranks that answer when told to."""

    num_ranks = 1
    num_groups = 1
    num_blocks = 12

    def __init__(self):
        super().__init__()
        group = GroupSpec(
            num_ranks=self.num_ranks, num_blocks=self.num_blocks, max_running=3, max_batched_tokens=8
        )
        self.deployment = DeploymentSpec(
            model="m",
            groups=(group,) * self.num_groups,
            block_size=BLOCK,
            max_model_len=MAX_LEN,
            max_waiting=6,
        )
        self.engine, self.twin = build(self.deployment), build(self.deployment)
        self.log = [header_line(self.deployment)]
        self.now = 0.0
        self.requests = {}
        self.output = {}
        self.ended = {}
        self.lost = set()
        self.flights = [deque() for _ in range(self.num_groups)]
        self.ranks = [self.fresh_ranks() for _ in range(self.num_groups)]

    def fresh_ranks(self):
        return [FakeRank(self.num_blocks, BLOCK, 3, draw) for _ in range(self.num_ranks)]

    def feed(self, event):
        now = Seconds(self.now)
        commands = self.engine.handle(event, now)
        assert encode_json(commands) == encode_json(self.twin.handle(event, now))
        self.log.append(entry_line(now, event, commands))
        for command in commands:
            self.carry_out(command)

    def carry_out(self, command):
        match command:
            case RunStep(plan=plan):
                assert plan.group not in {group for group, _ in self.lost}
                assert len(plan.ranks) == self.num_ranks
                for rank in plan.ranks:
                    assert sum(rank.num_new) <= 8
                self.flights[plan.group].append(plan)
                assert len(self.flights[plan.group]) <= self.deployment.max_in_flight
            case Emit():
                for request, token in zip(command.requests, command.tokens.tolist(), strict=True):
                    assert request not in self.ended
                    self.output[request].append(token)
            case Finish():
                assert command.request not in self.ended
                self.ended[command.request] = command
            case Refuse():
                if command.request not in self.requests:
                    self.ended[command.request] = command
                    self.requests[command.request] = None

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=MAX_LEN),
        max_tokens=st.integers(0, 12),
        min_tokens=st.integers(0, 3),
        stops=st.sampled_from([(), (STOP,), (STOP, 4)]),
        priority=st.integers(-1, 1),
        num_choices=st.integers(1, 3),
    )
    def arrive(self, prompt, max_tokens, min_tokens, stops, priority, num_choices):
        leader = RequestId(f"r{len(self.requests)}")
        for choice in range(num_choices):
            request = Request(
                id=RequestId(f"r{len(self.requests)}"),
                prompt=tuple(prompt),
                max_tokens=max_tokens,
                min_tokens=min_tokens,
                stop_token_ids=stops,
                priority=priority,
                sibling_of=leader if choice else None,
            )
            self.output[request.id] = []
            waiting = self.engine.num_waiting
            commands_before = len(self.ended)
            self.feed_arrival(request)
            if waiting < 6 and len(prompt) < MAX_LEN and max_tokens:
                assert len(self.ended) == commands_before or request.id not in self.ended

    def feed_arrival(self, request):
        self.feed(Arrive(request=request))
        self.requests.setdefault(request.id, request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def arrive_again_under_a_living_id(self, data):
        living = [r for r in self.requests if r not in self.ended]
        if living:
            request = self.requests[data.draw(st.sampled_from(living))]
            self.feed(Arrive(request=request))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data):
        request = data.draw(st.sampled_from(sorted(self.requests)))
        known_end = self.ended.get(request)
        self.feed(Cancel(request=request))
        if known_end is None:
            assert self.ended[request].reason == FinishReason.CANCELLED
        else:
            assert self.ended[request] is known_end

    @precondition(lambda self: any(self.flights))
    @rule(data=st.data())
    def step(self, data):
        group = data.draw(st.sampled_from([g for g, f in enumerate(self.flights) if f]))
        self.run_step(group)

    def run_step(self, group):
        plan = self.flights[group].popleft()
        results = tuple(rank.step(part) for rank, part in zip(self.ranks[group], plan.ranks, strict=True))
        self.feed(StepDone(group=GroupId(group), plan=plan.plan, ranks=results))

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds):
        self.now += seconds

    @rule(data=st.data())
    def lose_a_rank(self, data):
        group = data.draw(st.integers(0, self.num_groups - 1))
        rank = data.draw(st.integers(0, self.num_ranks - 1))
        self.flights[group].clear()
        self.ranks[group] = self.fresh_ranks()
        self.lost.add((group, rank))
        self.feed(RankLost(group=GroupId(group), rank=RankId(rank)))

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def join(self, data):
        self.rejoin(data.draw(st.sampled_from(sorted(self.lost))))

    def rejoin(self, lost):
        self.lost.remove(lost)
        self.feed(RankJoined(group=GroupId(lost[0]), rank=RankId(lost[1])))

    @invariant()
    def nothing_leaks(self):
        self.engine.check()

    def teardown(self):
        for lost in sorted(self.lost):
            self.rejoin(lost)
        for _ in range(3000):
            if not any(self.flights):
                break
            for group, flights in enumerate(self.flights):
                if flights:
                    self.run_step(group)
        for request in self.requests:
            assert request in self.ended, "a request starves"
        self.engine.check()
        stats = self.engine.stats()
        assert all(g.num_running == g.num_waiting == g.num_owned_blocks == 0 for g in stats.groups)
        for request, end in self.ended.items():
            if isinstance(end, Finish):
                self.check_output(self.requests[request], self.output[request], end)
        report = replay(self.log)
        assert report.same
        assert report.events == len(self.log) - 1

    def check_output(self, request, output, end):
        first = len(request.prompt)
        most = min(request.max_tokens, MAX_LEN - first)
        assert output == [draw(request.id, first + i) for i in range(len(output))]
        assert end.num_output == len(output)
        stops = [
            i for i, token in enumerate(output) if token in request.stop_token_ids and i >= request.min_tokens
        ]
        match end.reason:
            case FinishReason.STOP:
                assert stops == [len(output) - 1]
            case FinishReason.LENGTH:
                assert not stops
                assert len(output) == most
            case FinishReason.CANCELLED:
                assert not stops
                assert len(output) < most or most == 0


class Ranks2(EngineMachine):
    num_ranks = 2


class Groups2Ranks2(EngineMachine):
    num_ranks = 2
    num_groups = 2
    num_blocks = 10


class Ranks4(EngineMachine):
    num_ranks = 4


@pytest.mark.parametrize("machine", [EngineMachine, Ranks2, Groups2Ranks2, Ranks4])
def test_histories(machine):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        machine, settings=settings(max_examples=20, stateful_step_count=40, deadline=None)
    )
