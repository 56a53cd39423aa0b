"""Ranks forked from this process, for those who have no server: one step after the other."""

import os
import signal
import socket
from contextlib import suppress
from typing import BinaryIO

from msgspec import Struct

from rackscale.core import GroupId, PlaceExperts, RackscaleError, RankId, RankLostError, StepPlan
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.host_model import HostModel
from rackscale.runtime.messages import (
    Answered,
    Failed,
    FromRank,
    Perform,
    Place,
    Ready,
    frame,
    read_frame,
    unframe,
)
from rackscale.runtime.processes import die_with_parent
from rackscale.specs import DeploymentSpec


class _Link:
    """One rank's process, and the socket to it."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid, self._connection = pid, connection
        self._stream: BinaryIO = connection.makefile("rb")

    def send(self, message: Struct) -> None:
        self._connection.sendall(frame(message))

    def receive(self) -> Ready | Answered:
        body = read_frame(self._stream)
        if body is None:
            raise RankLostError(f"the rank's process {self.pid} died", hint="its last words are above")
        message: FromRank = unframe(body, FromRank)
        if isinstance(message, Failed):
            raise RackscaleError(message.what, hint=message.hint)
        return message

    def close(self) -> None:
        self._stream.close()
        self._connection.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class ForkedRanks:
    """See `inline.Ranks`. All ranks of the deployment, which the model's `Load` names, alive until
    `close`."""

    def __init__(self, model: HostModel, deployment: DeploymentSpec) -> None:
        self._links: dict[tuple[GroupId, RankId], _Link] = {}
        try:
            for number in range(len(deployment.groups)):
                group = GroupId(number)
                model.renew(group)
                for rank in model.ranks_of(group):
                    self._links[group, rank] = self._fork(model, group, rank)
            for link in self._links.values():
                link.receive()
        except BaseException:
            self.close()
            raise

    def _fork(self, model: HostModel, group: GroupId, rank: RankId) -> _Link:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            theirs.close()
            return _Link(pid, ours)
        status = 1
        try:
            ours.close()
            die_with_parent(parent)
            model.be_rank(theirs, group, rank)
            status = 0
        finally:
            os._exit(status)

    def perform(self, step: StepPlan) -> list[RankAnswer]:
        links = self._of(step.group)
        per_seat = len(links) // len(step.ranks)
        for number, link in enumerate(links):
            link.send(Perform(plan=step.ranks[number // per_seat]))
        answers = [link.receive() for link in links]
        return [answer.answer for answer in answers[::per_seat] if isinstance(answer, Answered)]

    def place(self, placement: PlaceExperts) -> None:
        for link in self._of(placement.group):
            link.send(place_message(placement))

    def _of(self, group: GroupId) -> list[_Link]:
        return [link for (its_group, _), link in self._links.items() if its_group == group]

    def close(self) -> None:
        """End all ranks."""
        for link in self._links.values():
            link.close()
        self._links.clear()


def place_message(placement: PlaceExperts) -> Place:
    """What a rank of the group is told."""
    return Place(
        num_experts=placement.num_experts,
        most=placement.most,
        ranks=placement.ranks,
        counts=placement.counts,
    )
