"""The control plane: a pure function of events and time.

`handle` takes one event and gives the commands that follow. Whoever calls it (a server with real processes,
a driver in one process, a test) carries them out and comes back with events. The same events at the same
times give the same commands.
"""

from typing import assert_never

import numpy as np

from rackscale.core import (
    Arrive,
    Cancel,
    Command,
    Emit,
    Event,
    Finish,
    FinishReason,
    GroupId,
    PlaceExperts,
    RankId,
    RankJoined,
    RankLost,
    Refuse,
    RefuseReason,
    Request,
    RequestId,
    RunStep,
    Seconds,
    SpecError,
    StepDone,
    column,
)
from rackscale.engine.expert_state import ExpertState
from rackscale.engine.group_state import Flight, GroupState
from rackscale.engine.pools import Pools
from rackscale.engine.rank_state import RankState
from rackscale.engine.sequence import Sequence
from rackscale.engine.stats import EngineStats
from rackscale.policy import PrefixJournal, importance, route
from rackscale.specs import DeploymentSpec


class Engine:
    """Groups, and which rank each living request is on. Made by `build`.

    journal: is told what enters and leaves the ranks' caches; None: nobody wants to know.
    """

    def __init__(self, deployment: DeploymentSpec, journal: PrefixJournal | None = None) -> None:
        self.deployment = deployment
        self._groups = [
            GroupState(GroupId(number), spec, deployment, journal)
            for number, spec in enumerate(deployment.groups)
        ]
        self._pools = Pools(self._groups)
        self._rank_of: dict[RequestId, RankState] = {}

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """What is to be done now that `event` has happened. `now` never goes back.

        Raises SpecError for an event that cannot have happened, such as an answer to no step.
        """
        match event:
            case Arrive():
                commands = self._arrive(event, now)
            case Cancel(request=request_id):
                commands = self._cancel(request_id)
            case StepDone():
                commands = self._step_done(event, now)
            case RankLost(group=group, rank=rank):
                commands = self._lose(self._group(group), rank)
            case RankJoined(group=group, rank=rank):
                commands = self._join(self._group(group), rank)
            case _:
                assert_never(event)
        return commands + self._plan(now)

    def _plan(self, now: Seconds) -> list[Command]:
        """Keep every group busy: the next step is planned while the last one runs."""
        commands: list[Command] = []
        for group in self._groups:
            while (step := group.plan(now)) is not None:
                commands.append(RunStep(plan=step))
        return commands

    def experts(self, group: GroupId) -> ExpertState | None:
        """The group's experts; None where one rank has all."""
        return self._group(group).experts

    def placement(self, group: GroupId) -> PlaceExperts | None:
        """Where the group's experts are: what ranks that start have to know. None where one rank has all."""
        experts = self.experts(group)
        return None if experts is None else experts.command()

    def _arrive(self, event: Arrive, now: Seconds) -> list[Command]:
        request = event.request
        refusal = self._refusal(request, again=event.again)
        if refusal is not None:
            return [refusal]
        limit = min(len(request.prompt) + request.max_tokens, self.deployment.max_model_len)
        sequence = Sequence(
            request=request,
            importance=importance(request.priority, now),
            limit=limit,
            names=[],
            emitted=event.emitted,
        )
        sequence.extend_names(sequence.tokens(), self.deployment.block_size)
        self._enqueue(sequence)
        reason = sequence.end_of_emitted()
        return [] if reason is None else [self._end(request.id, reason)]

    def _refusal(self, request: Request, *, again: bool) -> Refuse | None:
        length, most = len(request.prompt), self.deployment.max_model_len
        reason = RefuseReason.INVALID
        if request.id in self._rank_of:
            what, hint = f"request id {request.id} is in use", "give each request its own"
        elif length == 0:
            what, hint = "the prompt is empty", "give at least one token"
        elif length >= most:
            what = f"the prompt has {length} tokens, and the context holds {most} with the output"
            hint = f"shorten it to at most {most - 1} tokens"
        elif request.max_tokens < 1:
            what, hint = f"max_tokens is {request.max_tokens}", "ask for at least one token"
        elif not again and self.num_waiting >= self.deployment.max_waiting:
            reason = RefuseReason.QUEUE_FULL
            what, hint = f"{self.num_waiting} requests are waiting", "try again later"
        else:
            return None
        return Refuse(request=request.id, reason=reason, what=what, hint=hint)

    def _enqueue(self, sequence: Sequence) -> None:
        """To the rank of its sibling, or to the one that has its prompt computed soonest."""
        request = sequence.request
        rank = self._rank_of.get(request.sibling_of) if request.sibling_of is not None else None
        if rank is None:
            rank = self._best(self._pools.for_prompt(sequence), sequence)
        self._rank_of[request.id] = rank
        rank.enqueue(sequence)

    def _best(self, groups: list[GroupState], sequence: Sequence) -> RankState:
        ranks = [rank for group in groups for rank in group.ranks]
        return ranks[route([rank.offer(sequence) for rank in ranks])] if ranks[1:] else ranks[0]

    def _cancel(self, request: RequestId) -> list[Command]:
        if request not in self._rank_of:
            return []
        return [self._end(request, FinishReason.CANCELLED)]

    def _end(self, request: RequestId, reason: FinishReason) -> Finish:
        sequence = self._rank_of.pop(request).withdraw(request)
        return Finish(
            request=request,
            reason=reason,
            num_prompt=len(sequence.request.prompt),
            num_cached=sequence.num_cached or 0,
            num_output=len(sequence.emitted),
        )

    def _step_done(self, event: StepDone, now: Seconds) -> list[Command]:
        group = self._group(event.group)
        flight = group.land(event, now)
        emit, ends, departs = self._record(event, flight)
        commands: list[Command] = [emit] if emit.requests else []
        commands += [self._end(request, reason) for request, reason in ends]
        lost = self._lose_pushes(event)
        for request in departs:
            if request in lost:
                continue
            sequence, room = self._rank_of[request].depart(request)
            rank = self._rank_of[request] = self._groups[room.group].ranks[room.number]
            rank.arrive(sequence, room)
        self._pools.look()
        placement = group.rebalance(event)
        return commands if placement is None else [*commands, placement]

    def _lose_pushes(self, event: StepDone) -> set[RequestId]:
        """KV that did not arrive is computed again."""
        lost: set[RequestId] = set()
        for rank, result in zip(self._group(event.group).ranks, event.ranks, strict=True):
            for request in result.lost_pushes:
                rank.lose_push(request)
                lost.add(request)
        if lost:
            self._move_out([])
        return lost

    def _record(
        self, event: StepDone, flight: Flight
    ) -> tuple[Emit, list[tuple[RequestId, FinishReason]], list[RequestId]]:
        requests: list[RequestId] = []
        ends: list[tuple[RequestId, FinishReason]] = []
        departs: list[RequestId] = []
        tokens, samples, first = [column()], [column()], 0
        ranks = self._groups[event.group].ranks
        for rank, result, (rows, epochs) in zip(ranks, event.ranks, flight.samples, strict=True):
            recorded = rank.record(rows, epochs, result.tokens)
            requests += recorded.requests
            ends += recorded.ends
            departs += recorded.departs
            tokens.append(recorded.tokens)
            samples.append(recorded.counts + np.int32(first))
            first += len(rows)
        emit = Emit(
            requests=tuple(requests),
            tokens=np.concatenate(tokens),
            samples=np.concatenate(samples),
        )
        return emit, ends, departs

    def _lose(self, group: GroupState, rank: RankId) -> list[Command]:
        """What lived in the group, or was to go there, goes where it can live on, with its tokens."""
        group.lose(rank)
        return self._move_out([group])

    def _join(self, group: GroupState, rank: RankId) -> list[Command]:
        """Who waits at a group that is still not whole may find a better place now."""
        group.join(rank)
        return self._move_out([other for other in self._groups if other.lost])

    def _move_out(self, groups: list[GroupState]) -> list[Command]:
        homeless = [sequence for group in groups for rank in group.ranks for sequence in rank.abandon()]
        homeless += [
            sequence for group in self._groups for rank in group.ranks for sequence in rank.stranded()
        ]
        for sequence in homeless:
            del self._rank_of[sequence.request.id]
        for sequence in homeless:
            self._enqueue(sequence)
        return []

    def _group(self, group: GroupId) -> GroupState:
        if not 0 <= group < len(self._groups):
            raise SpecError(f"there is no group {group}", hint=f"the deployment has {len(self._groups)}")
        return self._groups[group]

    @property
    def num_waiting(self) -> int:
        """Accepted requests that have no row."""
        return sum(rank.num_waiting for group in self._groups for rank in group.ranks)

    @property
    def is_idle(self) -> bool:
        """Whether no accepted request lives."""
        return not self._rank_of

    def stats(self) -> EngineStats:
        """What the engine holds right now. Changes nothing."""
        return EngineStats(groups=tuple(group.stats() for group in self._groups))

    def check(self) -> None:
        """Assert the invariants: every block has its owners, every request its place."""
        for group in self._groups:
            group.check()
        living = sum(rank.num_running + rank.num_waiting for group in self._groups for rank in group.ranks)
        assert living == len(self._rank_of), "a request is lost, or in two places"
