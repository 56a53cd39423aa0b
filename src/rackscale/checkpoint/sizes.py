"""Sizes that must fit each other, whatever the family: what no tensor's shape would show."""

from pathlib import Path

from rackscale.core import SpecError
from rackscale.specs import GqaSpec, ModelSpec, RouterSpec


def check_sizes(spec: ModelSpec, path: Path) -> None:
    """Raises SpecError naming the config file and the two sizes that contradict each other."""
    if spec.rope.dim < 2 or spec.rope.dim % 2:
        raise SpecError(
            f"{path} rotates {spec.rope.dim} elements of a head", hint="it must be an even number"
        )
    if isinstance(spec.attention, GqaSpec):
        heads, kv_heads = spec.attention.num_heads, spec.attention.num_kv_heads
        if heads % kv_heads:
            raise SpecError(
                f"{path} has {heads} query heads over {kv_heads} key heads", hint="one must divide the other"
            )
    if spec.moe is not None:
        _check_router(spec.moe.router, path)


def _check_router(router: RouterSpec, path: Path) -> None:
    experts, groups = router.num_experts, router.num_groups
    if experts % groups or router.topk_groups > groups:
        raise SpecError(
            f"{path} takes {router.topk_groups} of {groups} groups of {experts} experts",
            hint="groups must be of one size, and there must be as many as are taken",
        )
    choice = experts // groups * router.topk_groups
    if router.top_k > choice:
        raise SpecError(
            f"{path} takes {router.top_k} experts a token of {choice}", hint="there are not as many"
        )
