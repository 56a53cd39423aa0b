"""One step of a group: a `StepPlan` holds one `RankPlan` per rank.

A rank keeps a table of rows, the seats of running sequences. A plan names rows and positions and
never tokens: a `Seat` brings a sequence's known tokens once, and the rank itself appends what it
samples. So a plan may be made before the tokens of the step in front of it exist: a token not yet
sampled is a placeholder, named by its row and position.
"""

from msgspec import Struct

from rackscale.core.columns import IntColumn
from rackscale.core.ids import GroupId, PlanId, RankId, RequestId, TokenId
from rackscale.core.request import Request


class Seat(Struct, frozen=True, kw_only=True):
    """A sequence takes a row before the step runs; whoever had the row is gone.

    emitted: the output so far, when the sequence was running before (preemption, a lost rank).
    The row's known tokens are request.prompt + emitted.
    """

    row: int
    request: Request
    emitted: tuple[TokenId, ...] = ()


class KvPush(Struct, frozen=True, kw_only=True):
    """KV of a row goes to another rank, layer by layer, as the step computes it.

    start, end: the positions that go; those in front of the step's first are in the cache already.
    group, rank: where to. blocks: the sequence's block table there, in blocks of `block_size`.
    """

    request: RequestId
    row: int
    start: int
    end: int
    group: GroupId
    rank: RankId
    blocks: IntColumn
    block_size: int


class RankPlan(Struct, frozen=True, kw_only=True):
    """What one rank does in one step. Empty columns: it only takes part in the all-to-all.

    rows, num_computed, num_new, samples run in parallel, one entry a sequence: the row, the tokens
    whose KV exists (the step's first position), the tokens that the step adds, and 1 where the
    last of them yields a sampled token. Sequences with num_new 1 come first.
    block_rows, block_indices, block_ids run in parallel: entry `index` of the row's block table
    becomes `block`. They are applied after the seats and before the step.
    pushes: the step is done when their KV has arrived.
    """

    seats: tuple[Seat, ...] = ()
    rows: IntColumn
    num_computed: IntColumn
    num_new: IntColumn
    samples: IntColumn
    block_rows: IntColumn
    block_indices: IntColumn
    block_ids: IntColumn
    pushes: tuple[KvPush, ...] = ()


class StepPlan(Struct, frozen=True, kw_only=True):
    """One forward pass of a group: one `RankPlan` for each of its ranks, in order."""

    plan: PlanId
    group: GroupId
    ranks: tuple[RankPlan, ...]
