"""From a model, a layout and the few sizes that a user gives to a `DeploymentSpec`."""

from dataclasses import dataclass

from rackscale.core import SpecError
from rackscale.specs.deployment import DeploymentSpec, GroupSpec, Role
from rackscale.specs.heads import num_kv_copies, share_heads
from rackscale.specs.model import ModelSpec

BYTES_PER_GIB = 1 << 30
DEFAULT_KV_GIB = 4.0  # an upper bound: a model that needs less to fill its rows takes less
DEFAULT_MAX_RUNNING = 64
DEFAULT_MAX_BATCHED_TOKENS = 512
DEFAULT_BLOCK_SIZE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolLayout:
    """One group: its role, its ranks, and the redundant experts among them. tp: see `GroupSpec`."""

    role: Role = Role.MIXED
    num_ranks: int = 1
    tp: int = 1
    redundant_experts: int = 0


ONE_RANK = (PoolLayout(),)


def pools_of(
    *,
    mixed: int | None,
    prefill: int | None,
    decode: int | None,
    tp: int | None = None,
    redundant_experts: int = 0,
) -> tuple[PoolLayout, ...]:
    """The layout that a command line asks for; one mixed rank where it asks for none. tp: of the ranks that
    prefill; they are so many where nothing says how many. redundant_experts: of each group.

    Raises SpecError where the options contradict each other.
    """
    if mixed is not None and (prefill is not None or decode is not None):
        raise SpecError("--mixed with --prefill or --decode", hint="give one or the other")
    if (prefill is None) != (decode is None):
        raise SpecError("--prefill and --decode", hint="give both: each pool needs the other")
    for option, value in (("--mixed", mixed), ("--prefill", prefill), ("--decode", decode), ("--tp", tp)):
        if value is not None and value < 1:
            raise SpecError(f"{option} is {value}", hint="give at least 1")
    width, num_ranks = tp or 1, prefill or mixed or tp or 1
    if num_ranks % width:
        option = "--mixed" if prefill is None else "--prefill"
        raise SpecError(f"--tp {width} does not divide {option} {num_ranks}", hint="give a multiple of it")
    if prefill is not None and decode is not None:
        return (
            PoolLayout(role=Role.PREFILL, num_ranks=prefill, tp=width, redundant_experts=redundant_experts),
            PoolLayout(role=Role.DECODE, num_ranks=decode, redundant_experts=redundant_experts),
        )
    return (PoolLayout(num_ranks=num_ranks, tp=width, redundant_experts=redundant_experts),)


def lay_out(  # noqa: PLR0913 (an option each)
    model: ModelSpec,
    *,
    name: str,
    layout: tuple[PoolLayout, ...] = ONE_RANK,
    bytes_per_element: int = 4,
    max_model_len: int | None = None,
    kv_gib: float | None = None,
    block_size: int = DEFAULT_BLOCK_SIZE,
    max_batched_tokens: int = DEFAULT_MAX_BATCHED_TOKENS,
    max_running: int = DEFAULT_MAX_RUNNING,
    max_waiting: int = 1024,
) -> DeploymentSpec:
    """A deployment whose ranks are alike.

    bytes_per_element: of the KV cache. max_model_len None: the model's own limit. kv_gib: of all ranks
    together; None: what `max_running` sequences of full length need on each, at most `DEFAULT_KV_GIB`.
    Redundant experts fill up the slots where experts do not divide by ranks.
    Raises SpecError where a size is out of range, where heads do not divide by tp, or where a rank's cache
    does not hold one sequence of max_model_len.
    """
    for option, value in (
        ("--block-size", block_size),
        ("--max-batched-tokens", max_batched_tokens),
        ("--max-running", max_running),
        ("--max-model-len", 1 if max_model_len is None else max_model_len),
    ):
        if value < 1:
            raise SpecError(f"{option} is {value}", hint="give at least 1")
    if max_model_len is not None and max_model_len > model.max_positions:
        raise SpecError(
            f"--max-model-len {max_model_len} is beyond the model's {model.max_positions} positions",
            hint=f"give at most {model.max_positions}",
        )
    length = model.max_positions if max_model_len is None else max_model_len
    for pool in layout:
        share_heads(model.attention, pool.tp)
    num_caches = sum(pool.num_ranks // pool.tp * num_kv_copies(model.attention, pool.tp) for pool in layout)
    blocks_per_sequence = -(-length // block_size)
    bytes_per_block = model.kv_elements_per_token * bytes_per_element * block_size
    limit_gib = DEFAULT_KV_GIB if kv_gib is None else kv_gib
    num_blocks = int(limit_gib * BYTES_PER_GIB // (bytes_per_block * num_caches))
    if kv_gib is None:
        num_blocks = min(num_blocks, max_running * blocks_per_sequence)
    if num_blocks < blocks_per_sequence:
        needed_gib = blocks_per_sequence * bytes_per_block * num_caches / BYTES_PER_GIB
        ranks = f" on each of {num_caches} ranks" if num_caches > 1 else ""
        raise SpecError(
            f"{limit_gib:g} GiB of KV cache does not hold one sequence of {length} tokens{ranks}",
            hint=f"give --kv-gib {needed_gib:.2g} or more, or a smaller --max-model-len",
        )
    num_experts = 0 if model.moe is None else model.moe.router.num_experts
    return DeploymentSpec(
        model=name,
        groups=tuple(
            GroupSpec(
                role=pool.role,
                num_ranks=pool.num_ranks,
                tp=pool.tp,
                redundant_experts=_filled_up(num_experts + pool.redundant_experts, pool.num_ranks)
                - num_experts,
                num_blocks=num_blocks,
                max_running=max_running,
                max_batched_tokens=max_batched_tokens,
            )
            for pool in layout
        ),
        block_size=block_size,
        max_model_len=length,
        max_waiting=max_waiting,
        num_moe_layers=sum(layer.moe for layer in model.layers),
        num_experts=num_experts,
    )


def _filled_up(slots: int, num_ranks: int) -> int:
    """The next multiple of the number of ranks; none where there are no experts."""
    return -(-slots // num_ranks) * num_ranks
