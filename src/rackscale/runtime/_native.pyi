# The C++ kernels (csrc/). See kernels/native.py for what each takes; tensors are addresses.

class Experts:
    def __init__(
        self,
        num_experts: int,
        hidden: int,
        width: int,
        gate_up: int,
        down: int,
        is_bf16: bool,
        gate_up_bias: int,
        down_bias: int,
        clamped: bool,
        alpha: float,
        limit: float,
        /,
    ) -> None: ...

class Router:
    def __init__(
        self,
        num_experts: int,
        top_k: int,
        num_groups: int,
        topk_groups: int,
        scoring: int,
        renormalise: bool,
        scale: float,
        /,
    ) -> None: ...

def rms_norm(
    x: int, stride: int, weight: int, num_rows: int, width: int, eps: float, out: int, /
) -> None: ...
def rotate(
    x: int,
    token_stride: int,
    head_stride: int,
    cos: int,
    sin: int,
    positions: int,
    num_tokens: int,
    num_heads: int,
    half: int,
    /,
) -> None: ...
def linear(x: int, weight: int, bias: int, num_rows: int, depth: int, columns: int, out: int, /) -> None: ...
def experts(
    hidden: int,
    weights: int,
    expert_ids: int,
    num_tokens: int,
    per_token: int,
    experts: Experts,
    out: int,
    num_threads: int,
    /,
) -> None: ...
def route(
    logits: int, correction: int, num_tokens: int, router: Router, weights: int, expert_ids: int, /
) -> None: ...
def mla_decode(
    query: int,
    cache: int,
    rows: int,
    lengths: int,
    table: int,
    num_decodes: int,
    table_width: int,
    block_size: int,
    num_heads: int,
    width: int,
    rank: int,
    scale: float,
    out: int,
    num_threads: int,
    /,
) -> None: ...
def gqa_decode(
    query: int,
    keys: int,
    values: int,
    rows: int,
    lengths: int,
    table: int,
    num_decodes: int,
    table_width: int,
    block_size: int,
    num_heads: int,
    num_key_heads: int,
    head_dim: int,
    scale: float,
    window: int,
    sinks: int,
    out: int,
    num_threads: int,
    /,
) -> None: ...
