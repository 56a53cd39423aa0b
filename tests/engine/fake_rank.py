"""A rank that computes nothing: it keeps tokens where a real one keeps KV, and checks what it would read."""

import numpy as np

from rackscale.core import RankPlan, RankResult, column

VOID = -7


class FakeRank:
    """Applies plans in order. The content of a slot is the token, so that a context read through a block
    table can be held against the row's tokens."""

    def __init__(self, num_blocks, block_size, max_running, draw):
        self.block_size = block_size
        self.slots = np.full((num_blocks, block_size), VOID)
        self.tables = [dict() for _ in range(max_running)]
        self.tokens = [[] for _ in range(max_running)]
        self.draw = draw  # (request id, position) -> token
        self.ids = [None] * max_running

    def step(self, plan: RankPlan) -> RankResult:
        for seat in plan.seats:
            self.tables[seat.row] = {}
            self.tokens[seat.row] = list(seat.request.prompt + seat.emitted)
            self.ids[seat.row] = seat.request.id
        for row, index, block in zip(plan.block_rows, plan.block_indices, plan.block_ids, strict=True):
            self.tables[row][int(index)] = int(block)
        work = list(zip(plan.rows, plan.num_computed, plan.num_new, plan.samples, strict=True))
        assert [n == 1 for _, _, n, _ in work] == sorted((n == 1 for _, _, n, _ in work), reverse=True)
        for row, computed, new, _ in work:
            assert new >= 1, "logits come from a token that is computed"
            for position in range(computed, computed + new):
                block = self.tables[row][position // self.block_size]
                self.slots[block, position % self.block_size] = self.tokens[row][position]
        sampled = [self._sample(row, computed + new) for row, computed, new, s in work if s]
        return RankResult(tokens=column(sampled), expert_loads=column())

    def _sample(self, row, length):
        tokens = self.tokens[row]
        assert length == len(tokens), "a sample must come from the last known token"
        context = [
            self.slots[self.tables[row][position // self.block_size], position % self.block_size]
            for position in range(length)
        ]
        assert context == tokens, "the cache does not hold the row's own tokens"
        token = self.draw(self.ids[row], length)
        tokens.append(token)
        return token
