"""Hosts and their ranks, as the engine's process has them: who is connected, which groups can work.

A group lives and dies as a whole. Ranks wait for each other in every layer, so when one is gone the others
hold half a step; they are ended, and the group is forked again, which takes milliseconds. It counts as lost
only when all its connections are closed, which is after the last of its processes has written to memory.
"""

import asyncio
import hmac
import logging
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from msgspec.structs import replace

from rackscale.core import (
    GroupId,
    PlaceExperts,
    RackscaleError,
    RankId,
    RankLostError,
    RankPlan,
    SpecError,
    StepPlan,
)
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.messages import (
    Answered,
    Door,
    Failed,
    Fence,
    FromHost,
    FromRank,
    Hello,
    KillGroup,
    Load,
    Loaded,
    Loading,
    Meet,
    Perform,
    Ping,
    Place,
    Pong,
    RankExited,
    Ready,
    Refused,
    StartGroup,
    unframe,
)
from rackscale.serve.layout import assign
from rackscale.serve.peer import Peer
from rackscale.specs import GroupSpec

MAX_FAILURES = 5
RETRY_S = 0.1  # after the first failure; twice as much after each that follows
CLOSE_LIMIT_S = 5.0
LAST_STEP = 2**62
PING_S = 1.0
WATCH_S = 0.1
NOTICED_S = 2 * WATCH_S
LOAD_LIMITS = 5  # a layer may take so many times as long to load as a group to start

_LOG = logging.getLogger("rackscale.engine")


class Fleet:
    """All hosts and groups of one engine. `events` is told what the engine has to know."""

    def __init__(
        self, load: Load, token: str, num_hosts: int, start_limit_s: float, events: "FleetEvents"
    ) -> None:
        self.load, self.events, self.start_limit_s = load, events, start_limit_s
        self._token, self._num_hosts = token, num_hosts
        self.now = 0.0  # seconds that this process was there to notice; see `watch`
        self.hosts: dict[str, Host] = {}
        self.groups = [
            Group(GroupId(number), spec, self) for number, spec in enumerate(load.deployment.groups)
        ]
        self._ranks_of: dict[str, tuple[tuple[GroupId, RankId], ...]] = {}

    def peer(self) -> Peer:
        """For a connection that is about to be made."""
        return Peer(_Stranger(self))

    def greet(self, peer: Peer, hello: Hello) -> None:
        """A connection said who it is."""
        if not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            _LOG.warning("somebody without the token calls itself %s", hello.host)
            hint = "give it the engine's RACKSCALE_TOKEN"
            peer.send(Refused(what="the engine does not know the token", hint=hint, again=False))
            peer.end()
        elif hello.group is None:
            self._greet_host(peer, hello)
        elif 0 <= hello.group < len(self.groups) and hello.rank is not None:
            self.groups[hello.group].greet(peer, hello)
        else:
            peer.close()

    def _greet_host(self, peer: Peer, hello: Hello) -> None:
        if hello.host in self.hosts or (self._ranks_of and hello.host not in self._ranks_of):
            _LOG.warning("a host called %s is not wanted", hello.host)
            what = f"the engine has a host called {hello.host}, or has all that it wants"
            peer.send(Refused(what=what, hint="give another --name, or raise --hosts", again=True))
            peer.end()
            return
        host = self.hosts[hello.host] = Host(self, peer, hello)
        peer.listener = host
        self.events.host_joined(hello.host, hello.pid)
        if self._ranks_of:
            host.load(self._load_of(hello.host))
        elif len(self.hosts) == self._num_hosts:
            self._assign()

    def _assign(self) -> None:
        """All hosts are here for the first time: say which has which ranks."""
        deployment = self.load.deployment
        capacities = {name: host.hello.num_ranks for name, host in self.hosts.items()}
        try:
            self._ranks_of = assign(deployment.groups, capacities)
        except SpecError as error:
            self.events.broken(error)
            return
        for name, host in self.hosts.items():
            host.load(self._load_of(name))

    def _load_of(self, host: str) -> Load:
        everywhere = tuple(self._ranks_of.items())
        return replace(self.load, ranks=self._ranks_of[host], hosts=everywhere if len(everywhere) > 1 else ())

    def doors_of(self, plan: RankPlan, host: str) -> tuple[Door, ...]:
        """What a rank of this host has to know of those on others that it pushes to."""
        places = {(push.group, push.rank) for push in plan.pushes}
        return tuple(door for group, seat in places for door in self.groups[group].doors(seat, host))

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        """Have all other groups take no KV any more of the group's steps up to this one. They obey before
        they do any step that they get later."""
        fence = Fence(group=group, incarnation=incarnation, step=step)
        for other in self.groups:
            if other.number != group:
                other.fence(fence)

    def hosts_of(self, group: GroupId) -> list[str]:
        """The names of those that have ranks of it."""
        return [name for name, ranks in self._ranks_of.items() if any(its == group for its, _ in ranks)]

    def host_loaded(self, _host: "Host") -> None:
        """Groups whose hosts are all there may start."""
        for group in self.groups:
            group.maybe_start()

    def host_lost(self, host: "Host") -> None:
        """Its ranks die with it."""
        if self.hosts.get(host.name) is host:
            del self.hosts[host.name]
        for group in self.groups:
            if host.name in self.hosts_of(group.number):
                group.down(f"host {host.name} is gone")

    def can_start(self, group: GroupId) -> bool:
        """Whether all its hosts have loaded the model."""
        names = self.hosts_of(group)
        return bool(names) and all(name in self.hosts and self.hosts[name].is_loaded for name in names)

    def perform(self, plan: StepPlan) -> None:
        """Give a group a step."""
        self.groups[plan.group].perform(plan)

    def place(self, placement: PlaceExperts) -> None:
        """From a group's next step on, experts are there."""
        self.groups[placement.group].place(placement)

    async def watch(self) -> None:
        """Hangs count as deaths, after the limit. For ever.

        When this process itself did not run for a while, the others are not late: what they said has yet to
        be read.
        """
        clock = asyncio.get_running_loop().time
        last = clock()
        while True:
            await asyncio.sleep(WATCH_S)
            passed_s, last = clock() - last, clock()
            self.tick(min(passed_s, NOTICED_S))

    def tick(self, passed_s: float) -> None:
        """Time passes."""
        self.now += passed_s
        for group in self.groups:
            group.watch()
        for host in list(self.hosts.values()):
            host.watch()


class FleetEvents:
    """What a fleet tells. A base that does nothing."""

    def group_up(self, group: GroupId) -> None:
        """All ranks of the group take plans."""

    def group_lost(self, group: GroupId, why: str) -> None:
        """No rank of the group lives."""

    def step_done(self, plan: StepPlan, answers: Sequence[RankAnswer]) -> None:
        """The group's oldest step is done; an answer a seat."""

    def loading(self, done: int, total: int) -> None:
        """A host has loaded so many layers."""

    def host_joined(self, host: str, pid: int) -> None:
        """A host is here."""

    def host_hangs(self, host: str, pid: int) -> None:
        """A host does not answer."""

    def broken(self, error: RackscaleError) -> None:
        """Nothing that is tried again would work."""


class _Stranger:
    """A connection that has not said who it is."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def received(self, peer: Peer, body: bytes) -> None:
        self._fleet.greet(peer, unframe(body, Hello))

    def closed(self, peer: Peer) -> None:
        """Nobody knew it."""


class Host:
    """A process that has weights and forks ranks."""

    def __init__(self, fleet: Fleet, peer: Peer, hello: Hello) -> None:
        self._fleet, self.peer, self.hello = fleet, peer, hello
        self.loaded: Loaded | None = None
        self._heard = fleet.now
        self._asked: float | None = None  # the question that is open: load, or say that you are there

    @property
    def name(self) -> str:
        return self.hello.host

    @property
    def is_loaded(self) -> bool:
        return self.loaded is not None

    def load(self, load: Load) -> None:
        """Have it load the model."""
        self._asked = self._fleet.now
        self.peer.send(load)

    def received(self, _peer: Peer, body: bytes) -> None:
        self._hear(unframe(body, FromHost))
        self._heard = self._fleet.now
        self._asked = None if self.is_loaded else self._heard

    def _hear(self, message: FromHost) -> None:
        match message:
            case Loading(done=done, total=total):
                self._fleet.events.loading(done, total)
            case Loaded() as loaded:
                self.loaded = loaded
                self._fleet.host_loaded(self)
            case Failed() as failed:
                error = RackscaleError(failed.what, hint=failed.hint)
                error.exit_code = failed.exit_code
                self._fleet.events.broken(error)
            case RankExited(group=group, rank=rank, incarnation=incarnation, status=status):
                if 0 <= group < len(self._fleet.groups):
                    self._fleet.groups[group].exited(rank, incarnation, status)
            case Pong():
                pass

    def closed(self, _peer: Peer) -> None:
        self._fleet.host_lost(self)

    def watch(self) -> None:
        """Ask now and then whether it is there. While it loads, its progress says so."""
        now, limit_s = self._fleet.now, self._limit_s
        if self._asked is None:
            if self.is_loaded and now - self._heard >= PING_S:
                self._asked = now
                self.peer.send(Ping())
        elif now - self._asked > limit_s:
            _LOG.error("host %s did not answer within %g s", self.name, limit_s)
            self._fleet.events.host_hangs(self.name, self.hello.pid)
            self.peer.close()

    @property
    def _limit_s(self) -> float:
        fleet = self._fleet
        return fleet.load.hang_limit_s if self.is_loaded else fleet.start_limit_s * LOAD_LIMITS


class State(Enum):
    """Of a group."""

    DOWN = "down"  # no process of it lives
    STARTING = "starting"
    UP = "up"
    ENDING = "ending"  # told to end; connections are still open


@dataclass(kw_only=True, slots=True)
class Link:
    """One rank's connection."""

    rank: RankId
    hello: Hello
    peer: Peer
    ready: bool = False
    num_answered: int = 0


@dataclass(kw_only=True, slots=True)
class InFlight:
    """A step that not all ranks have answered."""

    plan: StepPlan
    answers: dict[RankId, RankAnswer] = field(default_factory=dict)


class Group:
    """Ranks that live and die together. incarnation: rises with every start.

    A life fails if it ends by its own doing before a step was done. Failures in a row are tried again after
    longer and longer pauses, and are too many in the end; to be killed is no failure.
    """

    def __init__(self, number: GroupId, spec: GroupSpec, fleet: Fleet) -> None:
        self.number, self.spec, self._fleet = number, spec, fleet
        self.state = State.DOWN
        self.incarnation = 0
        self.links: dict[RankId, Link] = {}
        self.in_flight: deque[InFlight] = deque()
        self._placement: Place | None = None
        self._since = 0.0  # of the state
        self._progress = 0.0
        self._last_judged = 0  # incarnations up to this one have worked, or count as failures
        self._num_failures = 0
        self._not_before = 0.0
        self._why = ""

    @property
    def is_up(self) -> bool:
        return self.state is State.UP

    def maybe_start(self) -> None:
        """Fork the ranks, if nothing is in the way."""
        if self.state is not State.DOWN or not self._fleet.can_start(self.number):
            return
        if self._num_failures >= MAX_FAILURES:
            what = f"group {self.number} failed {MAX_FAILURES} times ({self._why})"
            self._fleet.events.broken(RankLostError(what, hint="its ranks' last words are above"))
            return
        if self._fleet.now < self._not_before:
            return
        self._enter(State.STARTING)
        self.incarnation += 1
        start = StartGroup(group=self.number, incarnation=self.incarnation)
        for name in self._fleet.hosts_of(self.number):
            self._fleet.hosts[name].peer.send(start)

    def _enter(self, state: State) -> None:
        self.state, self._since = state, self._fleet.now

    def greet(self, peer: Peer, hello: Hello) -> None:
        """A rank connected."""
        rank = hello.rank
        if (
            self.state is not State.STARTING
            or hello.incarnation != self.incarnation
            or rank is None
            or not 0 <= rank < self.spec.num_ranks
            or rank in self.links
        ):
            peer.close()
            return
        link = self.links[rank] = Link(rank=rank, hello=hello, peer=peer)
        peer.listener = _RankListener(self, link)
        if len(self.links) == self.spec.num_ranks and len(self._fleet.hosts_of(self.number)) > 1:
            addresses = [self.links[RankId(number)].hello.address for number in range(self.spec.num_ranks)]
            self._send_all(Meet(addresses=tuple(addresses)))

    def received(self, link: Link, body: bytes) -> None:
        """A rank said something. What one says that is to be ended does not count any more."""
        message: FromRank = unframe(body, FromRank)
        if self.state not in {State.STARTING, State.UP}:
            return
        match message:
            case Ready():
                link.ready = True
                self._maybe_up()
            case Answered(answer=answer):
                self._answered(link, answer)
            case Failed() as failed:
                self._judge(self.incarnation)
                self.down(f"rank {link.rank}: {failed.what}")

    def _maybe_up(self) -> None:
        if len(self.links) < self.spec.num_ranks or not all(link.ready for link in self.links.values()):
            return
        self._enter(State.UP)
        self._progress = self._fleet.now
        if self._placement is not None:
            self._send_all(self._placement)
        self._fleet.events.group_up(self.number)

    def _answered(self, link: Link, answer: RankAnswer) -> None:
        if link.num_answered >= len(self.in_flight):
            self.down(f"rank {link.rank} answered what it was not asked")
            return
        self.in_flight[link.num_answered].answers[link.rank] = answer
        link.num_answered += 1
        self._progress = self._fleet.now
        while self.in_flight and len(self.in_flight[0].answers) == self.spec.num_ranks:
            done = self.in_flight.popleft()
            for other in self.links.values():
                other.num_answered -= 1
            self._last_judged, self._num_failures = self.incarnation, 0
            answers = [done.answers[RankId(number)] for number in range(self.spec.num_ranks)]
            if any(answer.result.lost_pushes for answer in answers):
                _LOG.warning("KV of step %d of group %d did not arrive", done.plan.plan, self.number)
                self._fleet.fence(self.number, self.incarnation, done.plan.plan)
            self._fleet.events.step_done(done.plan, by_seat(answers, self.spec.tp))

    def perform(self, plan: StepPlan) -> None:
        """Give the group a step. One that is not up forgets it: the engine will hear that it is lost."""
        if self.state is not State.UP:
            return
        if not self.in_flight:
            self._progress = self._fleet.now
        self.in_flight.append(InFlight(plan=plan))
        for rank, link in self.links.items():
            part = plan.ranks[rank // self.spec.tp]
            doors = self._fleet.doors_of(part, link.hello.host) if part.pushes else ()
            link.peer.send(Perform(plan=part, step=plan.plan, doors=doors))

    def place(self, placement: PlaceExperts) -> None:
        """Experts are there, for this life of the group and the next."""
        self._placement = Place(
            num_experts=placement.num_experts,
            most=placement.most,
            ranks=placement.ranks,
            counts=placement.counts,
        )
        if self.state is State.UP:
            self._send_all(self._placement)

    def doors(self, seat: RankId, host: str) -> list[Door]:
        """Of a seat's ranks, for one on this host: those that are on others."""
        if self.state is not State.UP:
            return []
        links = [self.links[RankId(seat * self.spec.tp + number)] for number in range(self.spec.tp)]
        return [
            Door(group=self.number, rank=link.rank, address=link.hello.address)
            for link in links
            if link.hello.host != host
        ]

    def fence(self, fence: Fence) -> None:
        """See `Fleet.fence`."""
        if self.state is State.UP:
            self._send_all(fence)

    def _send_all(self, message: Place | Meet | Fence) -> None:
        for link in self.links.values():
            link.peer.send(message)

    def exited(self, rank: RankId, incarnation: int, status: int) -> None:
        """A rank's process is gone."""
        if status not in {0, -signal.SIGKILL}:
            self._judge(incarnation)
        if incarnation == self.incarnation:
            self.down(f"rank {rank} ended with status {status}")

    def _judge(self, incarnation: int) -> None:
        """A life ended by its own doing: it failed, unless it has worked or that is known."""
        if incarnation <= self._last_judged:
            return
        self._last_judged = incarnation
        self._not_before = self._fleet.now + RETRY_S * 2**self._num_failures
        self._num_failures += 1

    def down(self, why: str) -> None:
        """End all of it, if it is not ending."""
        if self.state not in {State.STARTING, State.UP}:
            return
        _LOG.warning("group %d is lost: %s", self.number, why)
        self._enter(State.ENDING)
        self._why = why
        self.in_flight.clear()
        for link in self.links.values():
            link.peer.kill()
        for name in self._fleet.hosts_of(self.number):
            if name in self._fleet.hosts:
                self._fleet.hosts[name].peer.send(KillGroup(group=self.number))
        self._maybe_lost()

    def link_closed(self, link: Link) -> None:
        """A rank's connection is closed: it is gone, or about to."""
        if self.links.get(link.rank) is link:
            del self.links[link.rank]
        if self.state is State.ENDING:
            self._maybe_lost()
        else:
            self.down(f"rank {link.rank} (process {link.hello.pid}) is gone")

    def _maybe_lost(self) -> None:
        if self.links:
            return
        self._enter(State.DOWN)
        self._fleet.fence(self.number, self.incarnation, LAST_STEP)
        self._fleet.events.group_lost(self.number, self._why)
        self.maybe_start()

    def watch(self) -> None:
        """See `Fleet.watch`."""
        now = self._fleet.now
        hang_limit_s, start_limit_s = self._fleet.load.hang_limit_s, self._fleet.start_limit_s
        match self.state:
            case State.UP if self.in_flight and now - self._progress > hang_limit_s:
                late = [rank for rank in self.links if rank not in self.in_flight[0].answers]
                self.down(f"ranks {late} did not answer within {hang_limit_s:g} s")
            case State.STARTING if now - self._since > start_limit_s:
                self._judge(self.incarnation)
                self.down(f"it did not start within {start_limit_s:g} s")
            case State.ENDING if now - self._since > CLOSE_LIMIT_S:
                for link in list(self.links.values()):  # their host is out of reach: so is what they write to
                    link.peer.close()
            case State.DOWN:
                self.maybe_start()
            case _:
                pass


def by_seat(answers: Sequence[RankAnswer], tp: int) -> list[RankAnswer]:
    """An answer a seat: its first rank's, and whose KV any of its ranks lost."""
    seats = []
    for first in range(0, len(answers), tp):
        lost = {name for answer in answers[first : first + tp] for name in answer.result.lost_pushes}
        result = replace(answers[first].result, lost_pushes=tuple(sorted(lost)))
        seats.append(replace(answers[first], result=result) if lost else answers[first])
    return seats


@dataclass(frozen=True, slots=True)
class _RankListener:
    """Between a rank's connection and its group."""

    group: Group
    link: Link

    def received(self, _peer: Peer, body: bytes) -> None:
        self.group.received(self.link, body)

    def closed(self, _peer: Peer) -> None:
        self.group.link_closed(self.link)
