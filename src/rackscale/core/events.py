"""What happened. An `Engine` learns of the world through these alone."""

from msgspec import Struct

from rackscale.core.columns import IntColumn
from rackscale.core.ids import GroupId, PlanId, RankId, RequestId, TokenId
from rackscale.core.request import Request


class Arrive(Struct, frozen=True, kw_only=True, tag=True):
    """A request came in. Its id is not that of a living one.

    again: another engine accepted it, and is gone. emitted: the tokens that its client has from that one: the
    output goes on after them.
    """

    request: Request
    again: bool = False
    emitted: tuple[TokenId, ...] = ()


class Cancel(Struct, frozen=True, kw_only=True, tag=True):
    """The client is gone or has asked to stop. Unknown and ended ids are ignored."""

    request: RequestId


class RankResult(Struct, frozen=True, kw_only=True):
    """What one rank answers to its `RankPlan`.

    tokens: one for each sequence with `samples` 1, in the plan's order.
    expert_loads: tokens by MoE layer and expert, flattened; empty when not reported.
    lost_pushes: whose KV did not arrive, and nothing of it will any more.
    """

    tokens: IntColumn
    expert_loads: IntColumn
    lost_pushes: tuple[RequestId, ...] = ()


class StepDone(Struct, frozen=True, kw_only=True, tag=True):
    """A group finished its oldest step in flight."""

    group: GroupId
    plan: PlanId
    ranks: tuple[RankResult, ...]


class RankLost(Struct, frozen=True, kw_only=True, tag=True):
    """A rank died: what lived in its group is gone, and its steps in flight will not answer."""

    group: GroupId
    rank: RankId


class RankJoined(Struct, frozen=True, kw_only=True, tag=True):
    """A lost rank is back, its cache empty."""

    group: GroupId
    rank: RankId


Event = Arrive | Cancel | StepDone | RankLost | RankJoined
