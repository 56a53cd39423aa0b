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
from rackscale.engine.group_state import Flight, GroupState
from rackscale.engine.rank_state import RankState
from rackscale.engine.sequence import Sequence
from rackscale.engine.stats import EngineStats
from rackscale.policy import importance, route
from rackscale.specs import DeploymentSpec


class Engine:
    """Groups, and which rank each living request is on. Made by `build`."""

    def __init__(self, deployment: DeploymentSpec) -> None:
        self.deployment = deployment
        self._groups = [
            GroupState(GroupId(number), spec, deployment) for number, spec in enumerate(deployment.groups)
        ]
        self._rank_of: dict[RequestId, RankState] = {}

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """What is to be done now that `event` has happened. `now` never goes back.

        Raises SpecError for an event that cannot have happened, such as an answer to no step.
        """
        match event:
            case Arrive(request=request):
                commands = self._arrive(request, now)
            case Cancel(request=request_id):
                commands = self._cancel(request_id)
            case StepDone():
                commands = self._step_done(event)
            case RankLost(group=group, rank=rank):
                commands = self._lose(self._group(group), rank)
            case RankJoined(group=group, rank=rank):
                commands = self._join(self._group(group), rank)
            case _:
                assert_never(event)
        return commands + self._plan()

    def _plan(self) -> list[Command]:
        """Keep every group busy: the next step is planned while the last one runs."""
        commands: list[Command] = []
        for group in self._groups:
            while (step := group.plan()) is not None:
                commands.append(RunStep(plan=step))
        return commands

    def _arrive(self, request: Request, now: Seconds) -> list[Command]:
        refusal = self._refusal(request)
        if refusal is not None:
            return [refusal]
        limit = min(len(request.prompt) + request.max_tokens, self.deployment.max_model_len)
        sequence = Sequence(
            request=request,
            importance=importance(request.priority, now),
            limit=limit,
            names=[],
        )
        sequence.extend_names(sequence.tokens(), self.deployment.block_size)
        self._enqueue(sequence)
        return []

    def _refusal(self, request: Request) -> Refuse | None:
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
        elif self.num_waiting >= self.deployment.max_waiting:
            reason = RefuseReason.QUEUE_FULL
            what, hint = f"{self.num_waiting} requests are waiting", "try again later"
        else:
            return None
        return Refuse(request=request.id, reason=reason, what=what, hint=hint)

    def _enqueue(self, sequence: Sequence) -> None:
        """To the rank of its sibling, or to the one that has it done soonest."""
        request = sequence.request
        rank = self._rank_of.get(request.sibling_of) if request.sibling_of is not None else None
        if rank is None:
            ranks = [rank for group in self._groups if not group.lost for rank in group.ranks]
            ranks = ranks or [rank for group in self._groups for rank in group.ranks]
            rank = ranks[route([rank.offer(sequence) for rank in ranks])] if ranks[1:] else ranks[0]
        self._rank_of[request.id] = rank
        rank.enqueue(sequence)

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

    def _step_done(self, event: StepDone) -> list[Command]:
        flight = self._group(event.group).land(event)
        emit, ends = self._record(event, flight)
        commands: list[Command] = [emit] if emit.requests else []
        return commands + [self._end(request, reason) for request, reason in ends]

    def _record(self, event: StepDone, flight: Flight) -> tuple[Emit, list[tuple[RequestId, FinishReason]]]:
        requests: list[RequestId] = []
        ends: list[tuple[RequestId, FinishReason]] = []
        tokens, samples, first = [column()], [column()], 0
        ranks = self._groups[event.group].ranks
        for rank, result, (rows, epochs) in zip(ranks, event.ranks, flight.samples, strict=True):
            recorded = rank.record(rows, epochs, result.tokens)
            requests += recorded.requests
            ends += recorded.ends
            tokens.append(recorded.tokens)
            samples.append(recorded.counts + np.int32(first))
            first += len(rows)
        emit = Emit(
            requests=tuple(requests),
            tokens=np.concatenate(tokens),
            samples=np.concatenate(samples),
        )
        return emit, ends

    def _lose(self, group: GroupState, rank: RankId) -> list[Command]:
        """What lived in the group goes where it can live on, with the tokens that it emitted."""
        group.lose(rank)
        return self._move_out([group])

    def _join(self, group: GroupState, rank: RankId) -> list[Command]:
        """Who waits at a group that is still not whole may find a better place now."""
        group.join(rank)
        return self._move_out([other for other in self._groups if other.lost])

    def _move_out(self, groups: list[GroupState]) -> list[Command]:
        homeless = [sequence for group in groups for rank in group.ranks for sequence in rank.abandon()]
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

    def stats(self) -> EngineStats:
        """What the engine holds right now. Changes nothing."""
        return EngineStats(groups=tuple(group.stats() for group in self._groups))

    def check(self) -> None:
        """Assert the invariants: every block has its owners, every request its place."""
        for group in self._groups:
            group.check()
        living = sum(rank.num_running + rank.num_waiting for group in self._groups for rank in group.ranks)
        assert living == len(self._rank_of), "a request is lost, or in two places"
