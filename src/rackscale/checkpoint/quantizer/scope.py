"""Which matrices are quantised, and which of them share a tensor scale."""

import re
from collections.abc import Iterable
from enum import StrEnum

from rackscale.checkpoint.metadata import Metadata
from rackscale.core import SpecError


class Scope(StrEnum):
    """experts: routed experts alone. linear: attention, MLPs, shared experts and the head too. Routers, norms
    and embeddings stay, and a head that is the embedding."""

    EXPERTS = "experts"
    LINEAR = "linear"


EXPERT = re.compile(r"layers\.\d+\.experts\.\d+\.(gate|up|down)")
LINEAR = re.compile(
    r"layers\.\d+\.(attn\.(q|k|v|o|q_a|q_b|kv_a|kv_b)|(ffn|shared|experts\.\d+)\.(gate|up|down))"
)
# What engines fuse into one matrix, which has one scale.
FUSED = {
    "gate": "gate", "up": "gate", "q": "q", "k": "q", "v": "q", "q_a": "q_a", "kv_a": "q_a",
}  # fmt: skip


def roles_in_scope(metadata: Metadata, scope: Scope) -> tuple[str, ...]:
    """The roles to quantise. Raises SpecError where there are none, or where experts are fused."""
    wanted = EXPERT if scope == Scope.EXPERTS else LINEAR
    roles = [role for role in metadata.sources if wanted.fullmatch(role)]
    if scope == Scope.LINEAR and not metadata.spec.tied_embeddings:
        roles.append("head")
    if not roles:
        raise SpecError(
            f"{metadata.path} has no routed experts", hint="give --scope linear to quantise all matrices"
        )
    for role in roles:
        source = metadata.sources[role]
        if source.expert is not None:
            raise SpecError(
                f"tensor {source.tensor!r} in {metadata.path} holds all experts of a layer",
                hint="only experts in tensors of their own are quantised",
            )
    return tuple(roles)


def groups_of(roles: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The roles, with those together that share a tensor scale: gate and up; q, k and v; q_a and kv_a."""
    groups: dict[str, list[str]] = {}
    for role in roles:
        owner, _, part = role.rpartition(".")
        groups.setdefault(f"{owner}.{FUSED.get(part, part)}", []).append(role)
    return tuple(map(tuple, groups.values()))
