"""One rank as the control plane sees it: rows, blocks, and who waits for them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from rackscale.core import (
    BlockId,
    FinishReason,
    GroupId,
    IntColumn,
    KvPush,
    RankId,
    RankPlan,
    RequestId,
    Seat,
    column,
)
from rackscale.engine.reservation import Reservation
from rackscale.engine.rows import Rows
from rackscale.engine.sequence import Sequence
from rackscale.engine.stats import RankStats
from rackscale.engine.table_changes import TableChanges
from rackscale.policy import ROOT, Candidate, KvBlocks, PrefixJournal, Siblings, Waiting, fill_step
from rackscale.specs import DeploymentSpec, GroupSpec

IDLE = RankPlan(
    rows=column(),
    num_computed=column(),
    num_new=column(),
    samples=column(),
    block_rows=column(),
    block_indices=column(),
    block_ids=column(),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What sampled tokens mean. counts: indices of those whose row still has the sequence they are for;
    tokens and requests: these tokens, and whose they are. ends: who ends with them. departs: who is prefilled
    and goes on elsewhere."""

    counts: IntColumn
    tokens: IntColumn
    requests: list[RequestId]
    ends: list[tuple[RequestId, FinishReason]]
    departs: list[RequestId]


class Stay:
    """Said of a sequence that is decoded where it is prefilled."""


FindRoom = Callable[[Sequence], "Reservation | Stay | None"]


def stay(_sequence: Sequence) -> Stay:
    """Every sequence is decoded where it is prefilled."""
    return Stay()


class RankState:
    """Rows, blocks, and who waits for them.

    A rank performs plans in order. So what a plan will have computed may be shared with, and what it
    still writes to may be given to, any later plan: names of blocks are known, and blocks and rows
    are free, from the moment of planning on.
    """

    def __init__(
        self,
        group: GroupId,
        number: RankId,
        spec: GroupSpec,
        deployment: DeploymentSpec,
        journal: PrefixJournal | None = None,
    ) -> None:
        self.group, self.number, self.spec = group, number, spec
        self.block_size, max_model_len = deployment.block_size, deployment.max_model_len
        self.find_room: FindRoom = stay
        self._journal = journal
        self.blocks = self._empty_blocks()
        self.rows = Rows(spec.max_running, max_model_len, self.block_size)
        self.waiting: Waiting[Sequence] = Waiting()
        self.siblings: Siblings[Sequence] = Siblings()
        self._row_of: dict[RequestId, int] = {}
        self._leaving: dict[RequestId, Reservation] = {}  # where rows go when they are prefilled
        self._expected: set[Reservation] = set()  # room here for rows of other ranks
        self._arrived: dict[
            RequestId, tuple[Sequence, Reservation]
        ] = {}  # their KV is here, they have no row
        # Blocks may be given to a row before the steps that write to them for another one are done, since
        # this rank does them in order. To other ranks, that write here too, only settled ones are given.
        self._busy_until = np.zeros(spec.num_blocks, dtype=np.int32)
        self.num_planned = self.num_landed = 0
        self.num_preempted = 0
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0

    @property
    def num_running(self) -> int:
        return len(self._row_of)

    @property
    def num_waiting(self) -> int:
        return len(self.waiting) + len(self.siblings) + len(self._arrived)

    @property
    def num_queued_tokens(self) -> int:
        """Of prompts that are not computed yet."""
        rows = self.rows
        running = int((rows.num_tokens - rows.num_computed)[rows.order].sum())
        return running + sum(item.num_tokens for item in self.waiting)

    def enqueue(self, sequence: Sequence) -> None:
        """Let it wait for a row, or for its sibling's prompt."""
        request = sequence.request
        if request.sibling_of is not None and self.siblings.expects(request.sibling_of):
            self.siblings.hold(request.sibling_of, request.id, sequence)
            return
        self.siblings.expect(request.id)
        self.waiting.push(request.id, sequence.importance, sequence)

    def offer(self, sequence: Sequence) -> Candidate:
        """What this rank has for a sequence that has not come yet."""
        return Candidate(
            cached_tokens=len(self._hits(sequence)) * self.block_size,
            queued_tokens=self.num_queued_tokens,
            resident_tokens=self.blocks.num_owned * self.block_size,
            num_sequences=self.num_running + self.num_waiting,
        )

    def reserve(self, sequence: Sequence) -> Reservation | None:
        """Room for a sequence that another rank will prefill; None where there is none now."""
        if self.rows.num_free <= len(self._expected) + len(self._arrived):
            return None
        hits = self._hits(sequence)
        lacking = -(-sequence.num_tokens // self.block_size) - len(hits)
        if lacking > self.blocks.num_available - self.blocks.num_cached(hits):
            return None
        self.blocks.share(hits)
        taken = self.blocks.take_settled(lacking, self._busy_until <= self.num_landed)
        if taken is None:
            self.blocks.release(column(hits))
            return None
        reservation = Reservation(
            group=self.group,
            number=self.number,
            give_up=self.release,
            blocks=np.concatenate((column(hits), taken)),
            num_shared=len(hits),
            num_there=len(hits) * self.block_size,
        )
        self._expected.add(reservation)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """A reservation of this rank is of no use any more, and nobody writes to its blocks."""
        self._expected.discard(reservation)
        self.blocks.release(reservation.blocks)

    def depart(self, request: RequestId) -> tuple[Sequence, Reservation]:
        """The request is prefilled, and its KV where it goes: it leaves its row."""
        reservation = self._leaving.pop(request)
        return self._vacate(self._row_of[request]), reservation

    def arrive(self, sequence: Sequence, reservation: Reservation) -> None:
        """The KV of a sequence's prompt is in the blocks that were reserved here."""
        self._expected.discard(reservation)
        self._arrived[sequence.request.id] = sequence, reservation
        num_full = len(sequence.request.prompt + sequence.emitted[:-1]) // self.block_size
        self._insert(sequence, reservation.blocks[:num_full])

    def plan(self) -> RankPlan:
        """What enters the next step; empty columns if there is nothing to do."""
        if not (self._row_of or self.waiting or self._arrived):
            return IDLE
        changes = TableChanges()
        moved_in = self._seat_arrived(changes)
        rows, gaps = self.rows.gaps()
        num_new = fill_step(gaps, self.spec.max_batched_tokens)
        preempted = self.num_preempted
        rows, num_new, lacking = self._make_room(rows[num_new > 0], num_new[num_new > 0])
        self._grant(rows, lacking, changes)
        seats: list[Seat] = []
        if self.num_preempted == preempted:
            budget = self.spec.max_batched_tokens - int(num_new.sum())
            seats, seated_new = self._admit(budget, changes)
            rows = np.concatenate((rows, column(seat.row for seat in seats)))
            num_new = np.concatenate((num_new, seated_new))
        return self._seal(moved_in + seats, rows, num_new, changes)

    def _seal(
        self, seats: list[Seat], rows: IntColumn, num_new: IntColumn, changes: TableChanges
    ) -> RankPlan:
        first = np.argsort(num_new != 1, kind="stable")
        rows, num_new = rows[first], num_new[first]
        num_computed = self.rows.num_computed[rows]
        samples = self.rows.advance(rows, num_new)
        for at in np.flatnonzero(num_computed < self.rows.num_seated[rows]).tolist():
            self._prefilled(int(rows[at]), start=int(num_computed[at]))
        block_rows, block_indices, block_ids = changes.columns()
        return RankPlan(
            seats=tuple(seats),
            rows=rows,
            num_computed=num_computed,
            num_new=num_new,
            samples=samples.astype(np.int32),
            block_rows=block_rows,
            block_indices=block_indices,
            block_ids=block_ids,
            pushes=self._pushes(rows) if self._leaving else (),
        )

    def _pushes(self, rows: IntColumn) -> tuple[KvPush, ...]:
        """What the step sends of rows that will leave, each up to what it computes."""
        pushes = []
        for row in rows.tolist():
            request = self.rows.ids[row]
            if request in self._leaving:
                end = int(self.rows.num_computed[row])
                pushes.append(self._leaving[request].push(request, row, end, self.block_size))
        return tuple(push for push in pushes if push is not None)

    def destinations_of(self, plan: RankPlan) -> list[Reservation]:
        """The reservations that the plan pushes to."""
        return [self._leaving[push.request] for push in plan.pushes]

    def _make_room(self, rows: IntColumn, num_new: IntColumn) -> tuple[IntColumn, IntColumn, IntColumn]:
        """Preempt the least important until the others can have the blocks that they lack.

        Gives who is left, their new tokens and how many blocks each of them lacks.
        """
        lacking = self.rows.blocks_lacking(rows, num_new)
        while int(lacking.sum()) > self.blocks.num_available:
            victim = int(self.rows.order[-1])
            sequence = self._vacate(victim)
            self.num_preempted += 1
            self.waiting.push(sequence.request.id, sequence.importance, sequence)
            others = rows != victim
            rows, num_new, lacking = rows[others], num_new[others], lacking[others]
        return rows, num_new, lacking

    def _grant(self, rows: IntColumn, counts: IntColumn, changes: TableChanges) -> None:
        """Give rows so many blocks each."""
        taken = self.blocks.take(int(counts.sum()))
        if len(taken):
            changes.add(*self.rows.append_blocks(rows, counts, taken), taken)

    def _seat_arrived(self, changes: TableChanges) -> list[Seat]:
        """Seat those whose KV came. Rows were kept for them."""
        seats = []
        for sequence, reservation in self._arrived.values():
            blocks = reservation.blocks
            row = self.rows.seat(sequence, blocks, sequence.num_tokens - 1)
            changes.add(np.full_like(blocks, row), np.arange(len(blocks), dtype=np.int32), blocks)
            self._row_of[sequence.request.id] = row
            seats.append(Seat(row=row, request=sequence.request, emitted=sequence.emitted))
        self._arrived.clear()
        return seats

    def _admit(self, budget: int, changes: TableChanges) -> tuple[list[Seat], IntColumn]:
        """Seat who waits, in order, as long as there are rows, budget and blocks, and room where they go."""
        seats: list[Seat] = []
        num_new: list[int] = []
        while (
            budget > 0
            and self.rows.num_free > len(self._expected)
            and (sequence := self.waiting.peek()) is not None
        ):
            hits = self._hits(sequence)
            num_hit = len(hits) * self.block_size
            chunk = min(budget, sequence.num_tokens - num_hit)
            lacking = -(-(num_hit + chunk) // self.block_size) - len(hits)
            if lacking > self.blocks.num_available - self.blocks.num_cached(hits):
                break
            room = self.find_room(sequence)
            if room is None:
                break
            self.waiting.remove(sequence.request.id)
            seats.append(self._seat(sequence, hits, changes))
            if isinstance(room, Reservation):
                self._leaving[sequence.request.id] = room
                self.rows.prefill_only(seats[-1].row)
            self._grant(column([seats[-1].row]), column([lacking]), changes)
            num_new.append(chunk)
            budget -= chunk
        return seats, column(num_new)

    def _seat(self, sequence: Sequence, hits: list[BlockId], changes: TableChanges) -> Seat:
        self.blocks.share(hits)
        blocks = column(hits)
        row = self.rows.seat(sequence, blocks, len(hits) * self.block_size)
        changes.add(np.full_like(blocks, row), np.arange(len(hits), dtype=np.int32), blocks)
        self._row_of[sequence.request.id] = row
        cached = len(hits) * self.block_size
        self.num_hit_tokens += cached
        self.num_queried_tokens += sequence.num_tokens
        if sequence.num_cached is None:
            sequence.num_cached = min(cached, len(sequence.request.prompt))
        return Seat(row=row, request=sequence.request, emitted=sequence.emitted)

    def _hits(self, sequence: Sequence) -> list[BlockId]:
        """Blocks that hold a prefix; at least one token is left over, since logits must come from it."""
        most = (sequence.num_tokens - 1) // self.block_size
        return self.blocks.index.longest_prefix(sequence.names[:most])

    def _prefilled(self, row: int, start: int) -> None:
        """A chunk of the row's prefill, from token `start` on, is in the plan."""
        sequence = self.rows.sequences[row]
        assert sequence is not None, "a step holds rows that are taken"
        first = start // self.block_size
        last = int(self.rows.num_computed[row]) // self.block_size
        last = min(last, len(sequence.names))
        self._insert(sequence, self.rows.table[row, first:last], first)
        if self.rows.num_computed[row] >= self.rows.num_prompt[row]:
            self._wake_siblings(sequence.request.id)

    def _empty_blocks(self) -> KvBlocks:
        return KvBlocks(self.spec.num_blocks, None if self._journal is None else self._journal.remove)

    def _insert(self, sequence: Sequence, blocks: IntColumn, first: int = 0) -> None:
        """The sequence's full blocks from number `first` on are in these."""
        names, size = sequence.names, self.block_size
        new = self.blocks.index.insert(names[first : first + len(blocks)], blocks.tolist())
        if self._journal is None or not new:
            return
        tokens = sequence.tokens()
        for number in (first + at for at in new):
            parent = names[number - 1] if number else ROOT
            block = tuple(tokens[number * size : (number + 1) * size].tolist())
            self._journal.store(names[number], parent, block)

    def _wake_siblings(self, leader: RequestId) -> None:
        for sibling in self.siblings.release(leader):
            self.enqueue(sibling)

    def samples_of(self, plan: RankPlan) -> tuple[IntColumn, IntColumn]:
        """The rows that sample in the plan, and who has them."""
        rows = plan.rows[plan.samples == 1]
        return rows, self.rows.epoch[rows]

    def record(self, rows: IntColumn, epochs: IntColumn, tokens: IntColumn) -> Recorded:
        """Tokens came for rows as they were at `epochs`."""
        counts = np.flatnonzero(self.rows.epoch[rows] == epochs).astype(np.int32)
        if len(counts) < len(rows):
            rows, tokens = rows[counts], tokens[counts]
        ids: list[RequestId] = self.rows.ids[rows].tolist()
        stopped, full = self.rows.record(rows, tokens)
        ends, departs = [], []
        for at in np.flatnonzero(stopped | full).tolist():
            if not stopped[at] and ids[at] in self._leaving and self._goes_on(int(rows[at])):
                departs.append(ids[at])
            else:
                ends.append((ids[at], FinishReason.STOP if stopped[at] else FinishReason.LENGTH))
        return Recorded(counts=counts, tokens=tokens, requests=ids, ends=ends, departs=departs)

    def _goes_on(self, row: int) -> bool:
        """Whether a row that has all that it may have here may have more elsewhere."""
        sequence = self.rows.sequences[row]
        assert sequence is not None, "only a taken row has tokens"
        return int(self.rows.num_known[row]) < sequence.limit

    def withdraw(self, request: RequestId) -> Sequence:
        """The request leaves this rank, wherever it stands here; its blocks are given up."""
        self._wake_siblings(request)
        if request in self._row_of:
            return self._vacate(self._row_of[request])
        if request in self.waiting:
            return self.waiting.remove(request)
        if request in self._arrived:
            sequence, reservation = self._arrived.pop(request)
            self.blocks.release(reservation.blocks)
            return sequence
        return self.siblings.remove(request)

    def abandon(self) -> list[Sequence]:
        """Everybody leaves, and nothing is known of the cache. Gives who lived or waited here, leaders before
        their siblings. Room that was reserved here is gone, but for blocks that steps in flight of other
        ranks still write to."""
        running = [self._vacate(row) for row in self.rows.order.tolist()]
        running += [sequence for sequence, _ in self._arrived.values()]
        self._arrived.clear()
        self.blocks.index.forget_all()
        self.blocks = self._empty_blocks()
        self._busy_until[:] = self.num_landed
        for reservation in list(self._expected):
            if reservation.num_in_flight:
                self._keep_new(reservation)
            else:
                self._expected.discard(reservation)
            reservation.dropped = True
        return running + self.waiting.drain() + self.siblings.drain()

    def _keep_new(self, reservation: Reservation) -> None:
        """Of a reservation's blocks, those that were shared are not written to."""
        reservation.blocks = reservation.blocks[reservation.num_shared :]
        reservation.num_shared = 0
        self.blocks.own(reservation.blocks)

    def lose_push(self, request: RequestId) -> None:
        """KV of the request, if it is still on its way elsewhere, did not arrive."""
        reservation = self._leaving.get(request)
        if reservation is not None:
            sequence = self.rows.sequences[self._row_of[request]]
            assert sequence is not None, "who leaves has a row"
            sequence.push_lost = True
            reservation.drop()

    def stranded(self) -> list[Sequence]:
        """Rows whose room elsewhere is gone leave. Their siblings, that wait here, wait for them no more."""
        gone = [request for request, room in self._leaving.items() if room.dropped]
        for request in gone:
            self._wake_siblings(request)
        return [self._vacate(self._row_of[request]) for request in gone]

    def _vacate(self, row: int) -> Sequence:
        """Take a row from its sequence. The index knows what was computed for it until its blocks are
        needed."""
        sequence = self.rows.sequences[row]
        assert sequence is not None, "only a taken row can be taken away"
        known = self.rows.known(row)
        sequence.emitted = tuple(known[len(sequence.request.prompt) :].tolist())
        sequence.extend_names(known, self.block_size)
        num_full = min(int(self.rows.num_computed[row]), len(known)) // self.block_size
        reservation = self._leaving.pop(sequence.request.id, None)
        if reservation is not None:
            reservation.drop()
        blocks = self.rows.vacate(row)
        self._busy_until[blocks] = self.num_planned
        self._insert(sequence, blocks[:num_full])
        self.blocks.release(blocks)
        del self._row_of[sequence.request.id]
        return sequence

    def stats(self) -> RankStats:
        """What it holds right now."""
        return RankStats(
            num_waiting=self.num_waiting,
            num_running=self.num_running,
            num_blocks=self.blocks.num_blocks,
            num_owned_blocks=self.blocks.num_owned,
            num_preempted=self.num_preempted,
            num_queried_tokens=self.num_queried_tokens,
            num_hit_tokens=self.num_hit_tokens,
        )

    def check(self) -> None:
        """Assert that rows, blocks and queues agree."""
        self.rows.check()
        assert sorted(self.rows.order.tolist()) == sorted(self._row_of.values()), "a row is lost"
        for request, row in self._row_of.items():
            assert self.rows.ids[row] == request, "a row is somebody else's"
            assert request not in self.waiting, "a request both runs and waits"
            assert request not in self.siblings, "a request both runs and is held"
        reserved = [*self._expected, *(room for _, room in self._arrived.values())]
        owned: Iterable[BlockId] = chain.from_iterable(
            blocks.tolist()
            for blocks in (
                *(self.rows.blocks(row) for row in self.rows.order.tolist()),
                *(room.blocks for room in reserved),
            )
        )
        self.blocks.check(owned)
        assert len(reserved) <= self.rows.num_free, "a row is promised twice"
        assert self._leaving.keys() <= self._row_of.keys(), "who has no row cannot leave one"
