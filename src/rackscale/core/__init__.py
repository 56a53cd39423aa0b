"""The vocabulary: requests, events, commands, plans, ids, units and errors. It decides nothing."""

from rackscale.core.columns import BoolColumn, IntColumn, column
from rackscale.core.commands import (
    Command,
    Emit,
    Finish,
    FinishReason,
    PlaceExperts,
    Refuse,
    RefuseReason,
    RunStep,
)
from rackscale.core.errors import (
    CapacityError,
    QueueFullError,
    RackscaleError,
    RankLostError,
    SpecError,
)
from rackscale.core.events import Arrive, Cancel, Event, RankJoined, RankLost, RankResult, StepDone
from rackscale.core.ids import BlockId, GroupId, PlanId, RankId, RequestId, TokenId
from rackscale.core.plan import KvPush, RankPlan, Seat, StepPlan
from rackscale.core.request import Guide, GuideKind, Request, Sampling
from rackscale.core.units import Seconds
from rackscale.core.wire import decode_json, decode_msgpack, encode_json, encode_msgpack

__all__ = [
    "Arrive",
    "BlockId",
    "BoolColumn",
    "Cancel",
    "CapacityError",
    "Command",
    "Emit",
    "Event",
    "Finish",
    "FinishReason",
    "GroupId",
    "Guide",
    "GuideKind",
    "IntColumn",
    "KvPush",
    "PlaceExperts",
    "PlanId",
    "QueueFullError",
    "RackscaleError",
    "RankId",
    "RankJoined",
    "RankLost",
    "RankLostError",
    "RankPlan",
    "RankResult",
    "Refuse",
    "RefuseReason",
    "Request",
    "RequestId",
    "RunStep",
    "Sampling",
    "Seat",
    "Seconds",
    "SpecError",
    "StepDone",
    "StepPlan",
    "TokenId",
    "column",
    "decode_json",
    "decode_msgpack",
    "encode_json",
    "encode_msgpack",
]
