"""A rank that computes nothing: where a real one keeps KV it keeps what that KV depends on, and checks it."""

import numpy as np

from rackscale.core import RankPlan, RankResult, column

VOID = -1


class FakeRank:
    """Applies plans in order.

    The KV of a position depends on all tokens up to it, so the content of a slot is a hash of these. What a
    sequence reads through its block table is held against its own tokens: before the step for what was
    computed earlier, and after it for all, since a step's writes may come in any order.
    """

    def __init__(self, num_blocks, block_size, max_running, draw):
        self.block_size = block_size
        self.slots = np.full(num_blocks * block_size, VOID)
        self.tables = [{} for _ in range(max_running)]
        self.tokens = [[] for _ in range(max_running)]
        self.ids = [None] * max_running
        self.draw = draw  # (request id, position) -> token

    def step(self, plan: RankPlan) -> RankResult:
        for seat in plan.seats:
            self.tables[seat.row] = {}
            self.tokens[seat.row] = list(seat.request.prompt + seat.emitted)
            self.ids[seat.row] = seat.request.id
        changes = (plan.block_rows.tolist(), plan.block_indices.tolist(), plan.block_ids.tolist())
        for row, index, block in zip(*changes, strict=True):
            self.tables[row][index] = block
        work = list(zip(*self._columns(plan), strict=True))
        self._check_form(plan)
        for row, computed, _, _ in work:
            self._check_context(row, computed)
        written = [self._write(row, at) for row, start, new, _ in work for at in range(start, start + new)]
        assert len(set(written)) == len(written), "two writes to a slot in one step"
        for row, computed, new, _ in work:
            self._check_context(row, computed + new)
        sampled = [self._sample(row, computed + new) for row, computed, new, samples in work if samples]
        self.pushed = [self._push(push) for push in plan.pushes]
        return RankResult(tokens=column(sampled), expert_loads=column())

    def _push(self, push):
        """What goes to another rank: where to, and the content by slot there."""
        positions = range(push.start, push.end)
        blocks, size = push.blocks.tolist(), push.block_size
        slots = [blocks[at // size] * size + at % size for at in positions]
        self._check_context(push.row, push.end)
        return (
            push.group,
            push.rank,
            {to: self.slots[self._slot(push.row, at)] for to, at in zip(slots, positions, strict=True)},
        )

    @staticmethod
    def _columns(plan):
        return plan.rows.tolist(), plan.num_computed.tolist(), plan.num_new.tolist(), plan.samples.tolist()

    @staticmethod
    def _check_form(plan):
        assert len(set(plan.rows.tolist())) == len(plan.rows), "a row is in a step once"
        assert (plan.num_new >= 1).all(), "an entry without work"
        assert (np.diff((plan.num_new == 1).astype(int)) <= 0).all(), "single tokens come first"
        columns = (plan.rows, plan.num_computed, plan.num_new, plan.samples)
        columns += (plan.block_rows, plan.block_indices, plan.block_ids)
        assert all(values.dtype == np.int32 for values in columns)

    def _slot(self, row, position):
        return self.tables[row][position // self.block_size] * self.block_size + position % self.block_size

    def _write(self, row, position):
        slot = self._slot(row, position)
        self.slots[slot] = hash(tuple(self.tokens[row][: position + 1]))
        return slot

    def _check_context(self, row, length):
        tokens = self.tokens[row]
        assert length <= len(tokens), "KV of a token that nobody knows"
        for position in range(length):
            expected = hash(tuple(tokens[: position + 1]))
            assert self.slots[self._slot(row, position)] == expected, "not the sequence's own KV"

    def _sample(self, row, length):
        tokens = self.tokens[row]
        assert length == len(tokens), "a sample must come from the last token"
        token = self.draw(self.ids[row], length)
        tokens.append(token)
        return token
