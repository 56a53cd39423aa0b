"""The other ends of connections, without connections."""

from rackscale.core import RankPlan, RankResult, StepPlan, column, encode_msgpack
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.messages import Answered, Hello, Load
from rackscale.serve.fleet import Fleet
from rackscale.serve.fleet_events import FleetEvents
from rackscale.specs import DeploymentSpec, GroupSpec, Role

TOKEN = "token"
HANG_LIMIT_S, START_LIMIT_S = 2.0, 10.0


class FakePeer:
    """What was sent, and who listens."""

    def __init__(self):
        self.sent, self.listener = [], None
        self.killed = self.closed = False

    def send(self, message):
        self.sent.append(message)

    def close(self):
        self.closed = True

    def end(self):
        self.closed = True

    def kill(self):
        self.killed = True

    def says(self, message):
        self.listener.received(self, encode_msgpack(message))

    def goes(self):
        self.listener.closed(self)

    def got(self, kind):
        return [message for message in self.sent if isinstance(message, kind)]


class Notes(FleetEvents):
    """All that a fleet told."""

    def __init__(self):
        self.told = []

    def group_up(self, group):
        self.told.append(("up", group))

    def group_lost(self, group, why):
        self.told.append(("lost", group, why))

    def step_done(self, plan, answers):
        self.told.append(("done", plan.plan, [answer.result.tokens.tolist() for answer in answers]))

    def loading(self, done, total):
        self.told.append(("loading", done, total))

    def host_hangs(self, host, pid):
        self.told.append(("hangs", host, pid))

    def broken(self, error):
        self.told.append(("broken", error.what))

    def of(self, kind):
        return [entry for entry in self.told if entry[0] == kind]


def load_of(*groups, hang_limit_s=HANG_LIMIT_S):
    """groups: (role, number of ranks)."""
    specs = tuple(
        GroupSpec(role=role, num_ranks=num, num_blocks=64, max_running=4, max_batched_tokens=64)
        for role, num in groups
    )
    return Load(
        path="nowhere",
        deployment=DeploymentSpec(model="m", groups=specs, block_size=16, max_model_len=64, max_waiting=8),
        ranks=(),
        activations="fp32",
        weights="auto",
        kernels="auto",
        tokenizer=False,
        wire="fp32",
        router_skew=0.0,
        hang_limit_s=hang_limit_s,
    )


def fleet_of(*groups, num_hosts=1):
    """A fleet that has nobody yet, and what it tells."""
    notes = Notes()
    return Fleet(load_of(*(groups or [(Role.MIXED, 2)])), TOKEN, num_hosts, START_LIMIT_S, notes), notes


def hello(**fields):
    return Hello(**{"token": TOKEN, "host": "here", "pid": 1, **fields})


def joins(fleet, **fields):
    """A process connected, and said who it is."""
    peer = FakePeer()
    fleet.greet(peer, hello(**fields))
    return peer


def step(number, *, group=0, num_seats=2):
    plan = RankPlan(
        rows=column([0]),
        num_computed=column([0]),
        num_new=column([1]),
        samples=column([1]),
        block_rows=column([0]),
        block_indices=column([0]),
        block_ids=column([0]),
    )
    return StepPlan(plan=number, group=group, ranks=(plan,) * num_seats)


def answered(*tokens):
    return Answered(answer=RankAnswer(result=RankResult(tokens=column(list(tokens)), expert_loads=column())))
