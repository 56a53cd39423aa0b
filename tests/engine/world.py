"""An engine with all that surrounds it: clients, fake ranks, a clock that is set by hand, and a log."""

from collections import deque

from fake_rank import FakeRank
from msgspec.structs import replace

from rackscale.core import (
    Arrive,
    Cancel,
    Emit,
    Finish,
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
from rackscale.engine import build, entry_line, header_line
from rackscale.specs import DeploymentSpec, GroupSpec

BLOCK = 4


def draw(request, position):
    """A token below 6 that depends on the sequence alone, as a seeded sample does."""
    return (sum(map(ord, request)) * 31 + position * 7) % 6


def small(
    *,
    groups=1,
    pools=({},),
    max_model_len=40,
    max_waiting=64,
    max_in_flight=2,
    num_experts=0,
    rebalance_every=50,
    **group,
):
    """A deployment of small groups in blocks of 4 tokens. pools: what is particular to each."""
    sizes = {"num_ranks": 1, "num_blocks": 40, "max_running": 3, "max_batched_tokens": 16, **group}
    return DeploymentSpec(
        model="m",
        groups=tuple(GroupSpec(**{**sizes, **pool}) for pool in pools) * groups,
        block_size=BLOCK,
        max_model_len=max_model_len,
        max_waiting=max_waiting,
        max_in_flight=max_in_flight,
        num_experts=num_experts,
        num_moe_layers=1 if num_experts else 0,
        rebalance_every=rebalance_every,
    )


def request(name="a", prompt=(1, 2, 3), max_tokens=4, **fields):
    return Request(id=RequestId(name), prompt=tuple(prompt), max_tokens=max_tokens, **fields)


class World:
    """The engine's twin, fed the same events, must say the same. Commands are carried out as they come;
    a step is answered when `step` says so."""

    def __init__(self, deployment, draw=draw):
        self.deployment, self.draw = deployment, draw
        self.engine, self.twin = build(deployment), build(deployment)
        self.log = [header_line(deployment)]
        self.now = 0.0
        self.requests = {}  # all that were accepted, or refused once
        self.output = {}
        self.ended = {}  # how, and exactly once
        self.lost = set()
        self.num_pushed = self.num_lost_pushes = 0
        self.flights = [deque() for _ in deployment.groups]
        self.ranks = [self._fresh_ranks(group) for group in deployment.groups]

    def _fresh_ranks(self, spec):
        size = self.deployment.block_size
        return [FakeRank(spec.num_blocks, size, spec.max_running, self.draw) for _ in range(spec.num_seats)]

    def feed(self, event):
        now = Seconds(self.now)
        commands = self.engine.handle(event, now)
        assert encode_json(commands) == encode_json(self.twin.handle(event, now))
        self.log.append(entry_line(now, event, commands))
        for command in commands:
            self._carry_out(command)
        self.engine.check()
        return commands

    def _carry_out(self, command):
        match command:
            case RunStep(plan=plan):
                self._launch(plan)
            case Emit():
                for request_id, token in zip(command.requests, command.tokens.tolist(), strict=True):
                    assert request_id not in self.ended, "a token after the end"
                    self.output[request_id].append(token)
            case Finish():
                assert command.request not in self.ended, "ended twice"
                self.ended[command.request] = command
            case Refuse():
                self.ended.setdefault(command.request, command)

    def _launch(self, plan):
        spec = self.deployment.groups[plan.group]
        assert plan.group not in {group for group, _ in self.lost}
        assert len(plan.ranks) == spec.num_seats
        assert any(len(rank.rows) for rank in plan.ranks), "a step without work"
        assert all(rank.num_new.sum() <= spec.max_batched_tokens for rank in plan.ranks)
        self.flights[plan.group].append(plan)
        assert len(self.flights[plan.group]) <= self.deployment.max_in_flight

    def arrive(self, *args, **fields):
        """A request comes in, whose id is new."""
        new = request(*args, **fields)
        self.requests[new.id], self.output[new.id] = new, []
        return self.feed(Arrive(request=new))

    def cancel(self, name):
        return self.feed(Cancel(request=RequestId(name)))

    def step(self, group=0, *, loses_pushes=False):
        """The group's oldest step in flight is done. loses_pushes: its KV does not arrive elsewhere."""
        plan = self.flights[group].popleft()
        results = tuple(rank.step(part) for rank, part in zip(self.ranks[group], plan.ranks, strict=True))
        if loses_pushes:
            lost = [tuple(push.request for push in part.pushes) for part in plan.ranks]
            results = tuple(replace(done, lost_pushes=ids) for done, ids in zip(results, lost, strict=True))
            self.num_lost_pushes += sum(map(len, lost))
        for rank in [] if loses_pushes else self.ranks[group]:
            for to_group, to_rank, content in rank.pushed:
                slots = self.ranks[to_group][to_rank].slots
                for slot, value in content.items():
                    slots[slot] = value
                    self.num_pushed += 1
        return self.feed(StepDone(group=GroupId(group), plan=plan.plan, ranks=results))

    def lose(self, group=0, rank=0):
        self.flights[group].clear()
        self.ranks[group] = self._fresh_ranks(self.deployment.groups[group])
        self.lost.add((group, rank))
        return self.feed(RankLost(group=GroupId(group), rank=RankId(rank)))

    def join(self, group=0, rank=0):
        self.lost.remove((group, rank))
        return self.feed(RankJoined(group=GroupId(group), rank=RankId(rank)))

    def run(self, max_steps=1000):
        """Answer steps, the groups in turn, until none is in flight."""
        for _ in range(max_steps):
            if not any(self.flights):
                return
            for group, flights in enumerate(self.flights):
                if flights:
                    self.step(group)
        raise AssertionError(f"still busy after {max_steps} steps of each group")

    def stats(self, group=0):
        return self.engine.stats().groups[group]

    def expected_output(self, name):
        """What the sequence says if nobody cuts it short."""
        wanted = self.requests[name]
        first = len(wanted.prompt)
        most = min(wanted.max_tokens, self.deployment.max_model_len - first)
        output = []
        while len(output) < most:
            output.append(self.draw(name, first + len(output)))
            if output[-1] in wanted.stop_token_ids and len(output) > wanted.min_tokens:
                break
        return output
