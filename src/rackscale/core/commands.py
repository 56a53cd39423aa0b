"""What is to be done. An `Engine` changes the world through these alone."""

from enum import StrEnum

from msgspec import Struct

from rackscale.core.columns import IntColumn
from rackscale.core.ids import GroupId, RequestId
from rackscale.core.plan import StepPlan


class FinishReason(StrEnum):
    """Why an accepted request ended."""

    STOP = "stop"  # a stop token
    LENGTH = "length"  # max_tokens, or the context is full
    CANCELLED = "cancelled"


class RefuseReason(StrEnum):
    """Why a request was not accepted."""

    INVALID = "invalid"  # it could never run here
    QUEUE_FULL = "queue_full"  # it could, later


class RunStep(Struct, frozen=True, kw_only=True, tag=True):
    """A group is to run a step, after those it already has in flight."""

    plan: StepPlan


class Emit(Struct, frozen=True, kw_only=True, tag=True):
    """Tokens leave. Columns run in parallel, one entry a token, in order.

    requests: whose token it is. tokens: the token. samples: which of the event's sampled tokens
    it is, counted over all ranks of its `StepDone`, so that a driver finds what the engine does not
    carry (log-probabilities).
    """

    requests: tuple[RequestId, ...]
    tokens: IntColumn
    samples: IntColumn


class Finish(Struct, frozen=True, kw_only=True, tag=True):
    """An accepted request ended. Every request gets exactly one `Finish` or one `Refuse`."""

    request: RequestId
    reason: FinishReason
    num_prompt: int
    num_cached: int  # prompt tokens whose KV came from the prefix cache, at first admission
    num_output: int


class Refuse(Struct, frozen=True, kw_only=True, tag=True):
    """A request was not accepted; `what` and `hint` make a sentence for its client."""

    request: RequestId
    reason: RefuseReason
    what: str
    hint: str


class PlaceExperts(Struct, frozen=True, kw_only=True, tag=True):
    """From the group's next `RunStep` on, tokens go to these ranks.

    counts: of each layer's experts, how many ranks have a copy, [layers * experts]; ranks: which, [layers *
    experts * most], each expert's first counts entries. num_moved: copies that a rank lacked before.
    """

    group: GroupId
    num_experts: int
    most: int
    ranks: IntColumn
    counts: IntColumn
    num_moved: int


Command = RunStep | PlaceExperts | Emit | Finish | Refuse
