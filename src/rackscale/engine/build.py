"""From a deployment to an engine, if it can live."""

from rackscale.core import SpecError
from rackscale.engine.engine import Engine
from rackscale.policy import PrefixJournal
from rackscale.specs import DeploymentSpec, GroupSpec, Role


def build(deployment: DeploymentSpec, journal: PrefixJournal | None = None) -> Engine:
    """An engine for a deployment. journal: see `Engine`.

    Raises SpecError where a size is below 1, where one of two pools is missing, where ranks do not divide by
    tp or experts by ranks, or where a rank could get stuck: a step must hold a token of every row, and a
    cache one sequence of full length.
    """
    _check_sizes(
        "the deployment",
        {
            "groups": len(deployment.groups),
            "block_size": deployment.block_size,
            "max_model_len": deployment.max_model_len,
            "max_waiting": deployment.max_waiting,
            "max_in_flight": deployment.max_in_flight,
        },
    )
    blocks_per_sequence = -(-deployment.max_model_len // deployment.block_size)
    for number, group in enumerate(deployment.groups):
        _check_group(f"group {number}", group, blocks_per_sequence)
        _check_experts(f"group {number}", group, deployment.num_experts)
    roles = {group.role for group in deployment.groups}
    if roles in ({Role.PREFILL}, {Role.DECODE}):
        (only,) = roles
        other = Role.DECODE if only is Role.PREFILL else Role.PREFILL
        raise SpecError(f"all groups are for {only} alone", hint=f"add one for {other}, or make one mixed")
    return Engine(deployment, journal)


def _check_group(name: str, group: GroupSpec, blocks_per_sequence: int) -> None:
    _check_sizes(name, {"num_ranks": group.num_ranks, "tp": group.tp, "max_running": group.max_running})
    if group.num_ranks % group.tp:
        raise SpecError(
            f"{name} has {group.num_ranks} ranks, of which tp {group.tp} share an attention",
            hint="make the number of ranks a multiple of tp",
        )
    if group.max_batched_tokens < group.max_running:
        raise SpecError(
            f"{name} steps over {group.max_batched_tokens} tokens but runs {group.max_running} sequences",
            hint="lower --max-running or raise --max-batched-tokens",
        )
    if group.num_blocks < blocks_per_sequence:
        raise SpecError(
            f"{name} has {group.num_blocks} blocks, and one sequence may need {blocks_per_sequence}",
            hint="raise --kv-gib or lower --max-model-len",
        )


def _check_experts(name: str, group: GroupSpec, num_experts: int) -> None:
    slots = num_experts + group.redundant_experts
    if num_experts and slots % group.num_ranks:
        raise SpecError(
            f"{name} has {slots} slots for experts, and {group.num_ranks} ranks",
            hint="choose redundant_experts so that ranks divide the slots",
        )


def _check_sizes(name: str, sizes: dict[str, int]) -> None:
    for size, value in sizes.items():
        if value < 1:
            raise SpecError(f"{name} has {size} {value}", hint="give at least 1")
