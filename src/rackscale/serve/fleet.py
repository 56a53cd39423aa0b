"""All hosts and groups of one engine: who is connected, and which groups can work."""

import asyncio
import hmac
import logging

from msgspec import Struct
from msgspec.structs import replace

from rackscale.core import GroupId, PlaceExperts, RankId, RankPlan, SpecError, StepPlan
from rackscale.runtime.messages import Door, Fence, Hello, Load, Refused, unframe
from rackscale.serve.fleet_events import FleetEvents
from rackscale.serve.group import Group
from rackscale.serve.host_link import Host
from rackscale.serve.layout import assign
from rackscale.serve.peer import Peer

WATCH_S = 0.1
NOTICED_S = 2 * WATCH_S

_LOG = logging.getLogger("rackscale.engine")


class Fleet:
    """All hosts and groups of one engine. `events` is told what the engine has to know."""

    def __init__(
        self, load: Load, token: str, num_hosts: int, start_limit_s: float, events: FleetEvents
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

    def tell_hosts(self, group: GroupId, message: Struct) -> None:
        """Those of its hosts that are here."""
        for name in self.hosts_of(group):
            if name in self.hosts:
                self.hosts[name].peer.send(message)

    def host_loaded(self) -> None:
        """Groups whose hosts are all there may start."""
        for group in self.groups:
            group.maybe_start()

    def host_lost(self, host: Host) -> None:
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


class _Stranger:
    """A connection that has not said who it is."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def received(self, peer: Peer, body: bytes) -> None:
        self._fleet.greet(peer, unframe(body, Hello))

    def closed(self, peer: Peer) -> None:
        """Nobody knew it."""
