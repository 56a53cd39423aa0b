# The C++ kernels (csrc/). See kernels/native.py and kernels/descriptors.py for what each takes; tensors are
# addresses.

from collections.abc import Callable
from typing import overload

import numpy as np
import numpy.typing as npt

from rackscale.core import IntColumn

class Matrix:
    @overload
    def __init__(self, weight: int, is_bf16: bool, depth: int, columns: int, bias: int, /) -> None: ...
    @overload
    def __init__(self, packed: Packed, bias: int, /) -> None: ...

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

class Packed:
    def __init__(
        self,
        *,
        format: int,  # noqa: A002 (csrc/packed.hpp's name)
        activations: int,
        depth: int,
        columns: int,
        tiles: int,
        tile_scales: int,
        input_scale: float,
    ) -> None: ...

class PackedExperts:
    def __init__(
        self,
        *,
        num_experts: int,
        hidden: int,
        width: int,
        gate_up: Packed,
        down: Packed,
        gate_up_bias: int,
        down_bias: int,
        clamped: bool,
        alpha: float,
        limit: float,
    ) -> None: ...

def tile_bytes(layout: int, depth: int, /) -> int: ...
def pack(jobs: npt.NDArray[np.int64], scales: npt.NDArray[np.float64], num_threads: int, /) -> None: ...
def read_bandwidth(memory: int, size: int, num_threads: int, /) -> float: ...
def peak(of_int8: bool, num_threads: int, /) -> float: ...
def instructions() -> str: ...
def set_instructions(name: str, /) -> None: ...
def packed_linear(
    rows: int,
    row_stride: int,
    num_rows: int,
    packed: Packed,
    bias: int,
    add: bool,
    out: int,
    out_stride: int,
    num_threads: int,
    /,
) -> None: ...
def packed_mlp(
    rows: int,
    row_stride: int,
    num_rows: int,
    gate_up: Packed,
    down: Packed,
    add: bool,
    out: int,
    out_stride: int,
    num_threads: int,
    /,
) -> None: ...
def packed_experts(
    hidden: int,
    gates: int,
    expert_ids: int,
    num_tokens: int,
    per_token: int,
    experts: PackedExperts,
    out: int,
    num_threads: int,
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

class Mla:
    def __init__(
        self,
        *,
        num_heads: int,
        nope: int,
        rope: int,
        value_width: int,
        rank: int,
        scale: float,
        eps: float,
        first: Matrix,
        query_norm: int,
        query_up: Matrix,
        latent_norm: int,
        key_up: Matrix,
        value_up: Matrix,
        out: Matrix,
    ) -> None: ...

class Gqa:
    def __init__(
        self,
        *,
        num_heads: int,
        num_key_heads: int,
        head_dim: int,
        window: int,
        scale: float,
        eps: float,
        clip: float,
        norm: int,
        first: Matrix,
        query_norm: int,
        key_norm: int,
        sinks: int,
        out: Matrix,
    ) -> None: ...

class Mlp:
    def __init__(self, gate_up: Matrix, down: Matrix, /) -> None: ...

class Domain:
    def __init__(
        self,
        *,
        rank: int,
        num_ranks: int,
        hidden: int,
        top_k: int,
        capacity: int,
        dispatch: int,
        combine: int,
    ) -> None: ...
    def segment_bytes(self) -> int: ...

class AllToAll:
    def __init__(self, domain: Domain, segments: list[int], spin_ns: int, limit_ns: int, /) -> None: ...
    def place(self, layer: int, ranks: IntColumn, counts: IntColumn, /) -> None: ...
    def dispatch(self, layer: int, hidden: int, expert_ids: int, gates: int, num_tokens: int, /) -> None: ...
    def receive(self) -> int: ...
    def take(self, hidden: int, expert_ids: int, gates: int, /) -> None: ...
    def experts(self, experts: Experts | PackedExperts, sums: int, num_threads: int, /) -> None: ...
    def combine(self, sums: int, /) -> None: ...
    def collect(self, out: int, /) -> None: ...
    def take_times(self) -> tuple[int, int, int]: ...

class Team:
    def __init__(
        self, index: int, capacity: int, segments: list[int], spin_ns: int, limit_ns: int, /
    ) -> None: ...
    def all_reduce(self, values: int, count: int, /) -> None: ...
    def take_times(self) -> tuple[int, int, int]: ...

def team_bytes(capacity: int, /) -> int: ...
def row_bytes(wire: int, width: int, /) -> int: ...
def encode_row(wire: int, source: int, width: int, to: int, /) -> None: ...
def decode_row(wire: int, source: int, width: int, to: int, /) -> None: ...

class Moe:
    def __init__(
        self,
        ranks: AllToAll | None,
        number: int,
        router: Matrix,
        correction: int,
        routing: Router,
        experts: Experts | PackedExperts,
        shared: Mlp,
        /,
    ) -> None: ...

class Model:
    def __init__(
        self,
        *,
        hidden: int,
        eps: float,
        embed: Matrix,
        cos: int,
        sin: int,
        final_norm: int,
        head: Matrix,
    ) -> None: ...
    def add(self, attention_norm: int, attention: Mla | Gqa, ffn_norm: int, ffn: Mlp | Moe, /) -> None: ...
    def decode(
        self,
        tokens: IntColumn,
        rows: IntColumn,
        lengths: IntColumn,
        table: IntColumn,
        block_size: int,
        caches: list[int],
        sampled: IntColumn,
        logits: int,
        loads: int,
        num_threads: int,
        after_attention: Callable[[int], None] | None,
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
def linear(x: int, stride: int, num_rows: int, matrix: Matrix, out: int, num_threads: int, /) -> None: ...
def swiglu(gate_up: int, num_rows: int, width: int, /) -> None: ...
def experts(
    hidden: int,
    weights: int,
    expert_ids: int,
    num_tokens: int,
    per_token: int,
    experts: Experts | PackedExperts,
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
def copy_rows(
    source: int, source_slots: IntColumn, row_bytes: int, to: int, to_slots: IntColumn, /
) -> None: ...
