"""Opaque handles. Each is opened only by its maker, so that the inside may change."""

from typing import NewType

RequestId = NewType("RequestId", str)
TokenId = NewType("TokenId", int)
GroupId = NewType("GroupId", int)
RankId = NewType("RankId", int)  # counted inside its group
BlockId = NewType("BlockId", int)  # counted inside its rank's KV cache
PlanId = NewType("PlanId", int)  # rises by one with every step of a group
