"""From a model and the few sizes that a user gives to a `DeploymentSpec` of one rank."""

from rackscale.core import SpecError
from rackscale.specs.deployment import DeploymentSpec, GroupSpec
from rackscale.specs.model import ModelSpec

BYTES_PER_GIB = 1 << 30
DEFAULT_KV_GIB = 4.0  # an upper bound: a model that needs less to fill its rows takes less
DEFAULT_MAX_RUNNING = 64
DEFAULT_MAX_BATCHED_TOKENS = 512
DEFAULT_BLOCK_SIZE = 16


def one_rank(
    model: ModelSpec,
    *,
    name: str,
    bytes_per_element: int = 4,
    max_model_len: int | None = None,
    kv_gib: float | None = None,
    block_size: int = DEFAULT_BLOCK_SIZE,
    max_batched_tokens: int = DEFAULT_MAX_BATCHED_TOKENS,
    max_running: int = DEFAULT_MAX_RUNNING,
    max_waiting: int = 1024,
) -> DeploymentSpec:
    """One mixed group of one rank.

    bytes_per_element: of the KV cache. max_model_len None: the model's own limit. kv_gib None: what
    `max_running` sequences of full length need, at most `DEFAULT_KV_GIB`.
    Raises SpecError where a size is out of range, or where the cache does not hold one sequence of
    max_model_len.
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
    blocks_per_sequence = -(-length // block_size)
    bytes_per_block = model.kv_elements_per_token * bytes_per_element * block_size
    limit_gib = DEFAULT_KV_GIB if kv_gib is None else kv_gib
    num_blocks = int(limit_gib * BYTES_PER_GIB // bytes_per_block)
    if kv_gib is None:
        num_blocks = min(num_blocks, max_running * blocks_per_sequence)
    if num_blocks < blocks_per_sequence:
        needed_gib = blocks_per_sequence * bytes_per_block / BYTES_PER_GIB
        raise SpecError(
            f"{limit_gib:g} GiB of KV cache does not hold one sequence of {length} tokens",
            hint=f"give --kv-gib {needed_gib:.2g} or more, or a smaller --max-model-len",
        )
    group = GroupSpec(num_blocks=num_blocks, max_running=max_running, max_batched_tokens=max_batched_tokens)
    return DeploymentSpec(
        model=name,
        groups=(group,),
        block_size=block_size,
        max_model_len=length,
        max_waiting=max_waiting,
    )
