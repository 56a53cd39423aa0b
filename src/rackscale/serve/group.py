"""A group's ranks, as the engine's process has them: their connections, and the steps that they have.

A group lives and dies as a whole. Ranks wait for each other in every layer, so when one is gone the others
hold half a step; they are ended, and the group is forked again, which takes milliseconds. It counts as lost
only when all its connections are closed, which is after the last of its processes has written to memory.
"""

import logging
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from rackscale.core import GroupId, PlaceExperts, RankId, RankLostError, RankPlan, StepPlan
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.messages import (
    Answered,
    Door,
    Failed,
    Fence,
    FromRank,
    Hello,
    KillGroup,
    Load,
    Meet,
    Perform,
    Place,
    Ready,
    StartGroup,
    unframe,
)
from rackscale.serve.fleet_events import FleetEvents
from rackscale.serve.peer import Peer
from rackscale.specs import GroupSpec

MAX_FAILURES = 5
RETRY_S = 0.1  # after the first failure; twice as much after each that follows
CLOSE_LIMIT_S = 5.0
LAST_STEP = 2**62

_LOG = logging.getLogger("rackscale.engine")


class Surroundings(Protocol):
    """The fleet, as one of its groups needs it."""

    load: Load
    events: FleetEvents
    start_limit_s: float
    now: float

    def can_start(self, group: GroupId) -> bool:
        """Whether all its hosts have loaded the model."""
        ...

    def hosts_of(self, group: GroupId) -> list[str]:
        """The names of those that have ranks of it."""
        ...

    def tell_hosts(self, group: GroupId, message: Struct) -> None:
        """Those of its hosts that are here."""
        ...

    def doors_of(self, plan: RankPlan, host: str) -> tuple[Door, ...]:
        """What a rank of this host has to know of those on others that it pushes to."""
        ...

    def fence(self, group: GroupId, incarnation: int, step: int) -> None:
        """Have all other groups take no KV any more of the group's steps up to this one."""
        ...


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

    def __init__(self, number: GroupId, spec: GroupSpec, fleet: Surroundings) -> None:
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
        self._fleet.tell_hosts(self.number, start)

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
        self._fleet.tell_hosts(self.number, KillGroup(group=self.number))
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
