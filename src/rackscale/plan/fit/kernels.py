"""Operators' formulas beside kernels measured alone: `python -m rackscale.plan.fit.kernels [--data FOLDER]`.

The kernels are those of `plan.silicon`; each is predicted by the formula and the parameters of whole plans,
which are fitted to whole servers. What the datasheet allows in less than `SHORTEST_S` is left out: launches
are most of such a kernel, and a step counts them elsewhere.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rackscale.core import SpecError
from rackscale.cost import Batch, Chips, Estimate, Parameters, Precision, Shape, Work, fitted, step
from rackscale.cost.formats import tensor_rate
from rackscale.cost.layouts import layouts
from rackscale.cost.step import routed_experts
from rackscale.plan.silicon import SYSTEMS, SiliconTable, read_silicon, silicon_tables
from rackscale.specs.catalog import load_system

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

SHORTEST_S = 10e-6
MLA_LATENT, MLA_ROPE, MLA_NOPE, MLA_VALUE = 512, 64, 128, 128  # of DeepSeek V3, which the tables are of
FORMATS = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "nvfp4": "nvfp4",
    "int4_wo": "int4",
}
KV_BYTES = {"bfloat16": 2.0, "fp8": 1.0}
GRAPHS = "graph"  # of all-reduces, those that CUDA graphs run, where the table tells


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelError:
    """Of n kernels of a class on a system, by all `backends` that have them. bound: "HBM", "tensor cores" or
    "link", by the datasheet. ratio: median of predicted over measured time; low, high: its 10th and 90th
    percentile."""

    kernel: str
    system: str
    backends: tuple[str, ...]
    format: str
    bound: str
    n: int
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """Kernels of one shape: what was measured [R], and what the formula says of it. kernel: another class
    than the table's."""

    format: str
    seconds: Array
    estimate: Estimate
    chips: Chips
    math: NDArray[np.intp]
    kernel: str = ""


def kernel_errors(
    tables: Sequence[SiliconTable], parameters: Parameters | None = None
) -> Sequence[KernelError]:
    """One entry for each class of kernels, system, format and bound that a formula is for. Of a backend's
    versions the one with the largest table counts."""
    best = fitted() if parameters is None else parameters
    parts: dict[tuple[str, str, str, str], dict[str, list[Array]]] = {}
    for table in _fullest(tables):
        kernel, of_rows = _RULES[table.name]
        chips = Chips.of([load_system(SYSTEMS[table.system])])
        for held in of_rows(read_silicon(table), chips, best):
            for bound, ratios in _ratios(held):
                key = (held.kernel or kernel, held.format, bound, table.system)
                backend = f"{table.backend} {table.version}"
                parts.setdefault(key, {}).setdefault(backend, []).append(ratios)
    return [_error(key, of_backend) for key, of_backend in sorted(parts.items())]


def _error(key: tuple[str, str, str, str], of_backend: Mapping[str, Sequence[Array]]) -> KernelError:
    kernel, kind, bound, system = key
    ratios = np.concatenate([part for parts in of_backend.values() for part in parts])
    low, ratio, high = np.quantile(ratios, (0.1, 0.5, 0.9))
    return KernelError(
        kernel=kernel,
        system=system,
        backends=tuple(sorted(of_backend)),
        format=kind,
        bound=bound,
        n=len(ratios),
        ratio=float(ratio),
        low=float(low),
        high=float(high),
    )


def _fullest(tables: Sequence[SiliconTable]) -> Sequence[SiliconTable]:
    found: dict[tuple[str, str, str], SiliconTable] = {}
    for table in tables:
        key = (table.system, table.name, table.backend)
        if table.name not in _RULES or table.system not in SYSTEMS:
            continue
        if key not in found or found[key].path.stat().st_size < table.path.stat().st_size:
            found[key] = table
    return list(found.values())


def _ratios(held: _Held) -> Iterator[tuple[str, Array]]:
    """Predicted over measured, by what the datasheet says the bound is."""
    predicted, chips = held.estimate, held.chips
    moving = np.broadcast_to(predicted.bytes_hbm / chips.hbm_bytes_per_s, (1, len(held.seconds)))[0]
    sending = np.broadcast_to(predicted.bytes_link / chips.fabric_bytes_per_s, (1, len(held.seconds)))[0]
    computing = np.broadcast_to(predicted.flops / tensor_rate(chips, held.math), (1, len(held.seconds)))[0]
    ideal = np.stack([moving, computing, sending])
    seconds = np.broadcast_to(predicted.seconds, (1, len(held.seconds)))[0]
    long = (ideal.max(0) >= SHORTEST_S) & (held.seconds > 0)
    for number, bound in enumerate(("HBM", "tensor cores", "link")):
        chosen = long & (ideal.argmax(0) == number)
        if chosen.any():
            yield bound, seconds[chosen] / held.seconds[chosen]


def _gemm(columns: Columns, chips: Chips, parameters: Parameters) -> Iterator[_Held]:
    """Dense products of m rows by n x k weights."""
    for kind, rows in _groups(columns, "gemm_dtype"):
        if kind not in FORMATS:
            continue
        m, n, k = (rows[name].astype(np.float64) for name in ("m", "n", "k"))
        precision = _precision(FORMATS[kind])
        # One weight of the shape stands for n x k of them: both terms of the formula are linear in weights.
        work = _work(_shape(replicated_weights=1.0), chips, precision, ranks=1.0, ep=1.0)
        batch = Batch(sequences=m, queries=np.ones_like(m), context=np.zeros_like(m), prefill=False)
        one = step(work, batch, parameters).operators["attention projections"]
        whole = Estimate(
            seconds=n * k * one.seconds, flops=n * k * one.flops, bytes_hbm=n * k * one.bytes_hbm
        )
        yield _Held(kind, rows["seconds"], whole, chips, precision.linear_math)


def _moe(columns: Columns, chips: Chips, parameters: Parameters) -> Iterator[_Held]:
    """Grouped products of all experts of a layer, unevenly routed; where they are spread over ranks, of the
    slowest rank, whose share of the work the table and the formula each have from their own routing."""
    uneven = np.char.startswith(columns["distribution"].astype(str), "power_law")
    columns = {name: values[uneven] for name, values in columns.items()}
    columns = {**columns, "spread": columns["moe_ep_size"] > 1}
    names = ("moe_dtype", "hidden_size", "inter_size", "num_experts", "topk", "spread")
    for key, rows in _groups(columns, *names):
        kind, hidden, width, experts, top_k, spread = key
        if kind not in FORMATS:
            continue
        tokens, ranks = rows["num_tokens"].astype(np.float64), rows["moe_tp_size"] * rows["moe_ep_size"]
        precision = _precision(FORMATS[kind])
        shape = _shape(
            hidden=int(hidden),
            num_moe_layers=1,
            experts=int(experts),
            top_k=int(top_k),
            expert_weights=3.0 * int(hidden) * int(width),
        )
        work = _work(shape, chips, precision, ranks=ranks, ep=rows["moe_ep_size"])
        found = routed_experts(work, tokens, parameters)
        alone = found.lasting(found.seconds + parameters["grouped_gemm_launch"])
        name = "grouped GEMM, spread" if spread == "True" else ""
        yield _Held(kind, rows["seconds"], alone, chips, precision.expert_math, name)


def _mla(columns: Columns, chips: Chips, parameters: Parameters, *, prefill: bool) -> Iterator[_Held]:
    """Attention of DeepSeek's compressed kind, of the heads that a rank has."""
    for (heads, cache), rows in _groups(columns, "num_heads", "kv_cache_dtype"):
        count = int(heads)
        shape = _shape(
            kv_elements=float(MLA_LATENT + MLA_ROPE),
            decode_flops=2.0 * count * (2 * MLA_LATENT + MLA_ROPE),
            prefill_flops=2.0 * count * (MLA_NOPE + MLA_ROPE + MLA_VALUE),
        )
        yield _attention(rows, cache, (shape, chips, parameters), prefill=prefill)


def _gqa(columns: Columns, chips: Chips, parameters: Parameters, *, prefill: bool) -> Iterator[_Held]:
    """Attention of grouped queries over the whole context, in BF16."""
    plain = (columns["window_size"] == 0) & (columns["attn_dtype"].astype(str) == "bfloat16")
    columns = {name: values[plain] for name, values in columns.items()}
    names = ("num_heads", "num_key_value_heads", "head_dim", "kv_cache_dtype")
    for (heads, kv_heads, width, cache), rows in _groups(columns, *names):
        flops = 4.0 * int(heads) * int(width)
        shape = _shape(kv_elements=2.0 * int(kv_heads) * int(width), decode_flops=flops, prefill_flops=flops)
        yield _attention(rows, cache, (shape, chips, parameters), prefill=prefill)


def _attention(
    rows: Columns, cache: str, of_model: tuple[Shape, Chips, Parameters], *, prefill: bool
) -> _Held:
    shape, chips, parameters = of_model
    sequences, queries, context = (rows[name].astype(np.float64) for name in ("batch_size", "isl", "step"))
    precision = _precision("bf16", KV_BYTES[cache])
    batch = Batch(sequences=sequences, queries=queries, context=context, prefill=prefill)
    work = _work(shape, chips, precision, ranks=1.0, ep=1.0)
    operator = step(work, batch, parameters).operators["attention"]
    return _Held(f"cache {cache}", rows["seconds"], operator, chips, np.zeros(1, dtype=np.intp))


def _all_reduce(columns: Columns, chips: Chips, parameters: Parameters) -> Iterator[_Held]:
    """Sums of BF16 activations over ranks. message_size: in elements."""
    backend = columns.get("backend", columns["kernel_source"]).astype(str)
    told = np.char.find(backend, GRAPHS) >= 0
    chosen = told if told.any() else np.ones(len(backend), dtype=np.bool_)
    elements, ranks = (columns[name][chosen].astype(np.float64) for name in ("message_size", "num_gpus"))
    work = _work(_shape(), chips, _precision("bf16"), ranks=ranks, ep=1.0, tp=ranks)
    batch = Batch(
        sequences=elements, queries=np.ones_like(elements), context=np.zeros_like(elements), prefill=False
    )
    operator = step(work, batch, parameters).operators["attention all-reduce"]
    yield _Held("bfloat16", columns["seconds"][chosen], operator, chips, np.zeros(1, dtype=np.intp))


_Rule = Callable[[Columns, Chips, Parameters], Iterator[_Held]]
_RULES: Mapping[str, tuple[str, _Rule]] = {
    "gemm": ("dense GEMM", _gemm),
    "moe": ("grouped GEMM", _moe),
    "context_mla": ("MLA prefill", lambda *rows: _mla(*rows, prefill=True)),
    "generation_mla": ("MLA decode", lambda *rows: _mla(*rows, prefill=False)),
    "context_attention": ("GQA prefill", lambda *rows: _gqa(*rows, prefill=True)),
    "generation_attention": ("GQA decode", lambda *rows: _gqa(*rows, prefill=False)),
    "custom_allreduce": ("all-reduce", _all_reduce),
}


def _groups(columns: Columns, *names: str) -> Iterator[tuple[Any, Columns]]:
    """Rows that have the same in these columns: what they have (one text where one name is given, else a
    tuple of texts), and their columns."""
    texts, numbers = zip(*(np.unique(columns[name], return_inverse=True) for name in names), strict=True)
    keys, of_row = np.unique(np.stack(numbers), axis=1, return_inverse=True)
    order = np.argsort(of_row.ravel(), kind="stable")
    bounds = np.searchsorted(of_row.ravel()[order], np.arange(keys.shape[1] + 1))
    for place, key in enumerate(keys.T):
        chosen = order[bounds[place] : bounds[place + 1]]
        told = tuple(str(values[number]) for values, number in zip(texts, key, strict=True))
        yield (
            (told if len(names) > 1 else told[0]),
            {name: values[chosen] for name, values in columns.items()},
        )


def _shape(**told: Any) -> Shape:
    """A model of one layer that has only what is told."""
    nothing: dict[str, Any] = {
        "hidden": 1,
        "vocab": 0,
        "num_layers": 1,
        "num_moe_layers": 0,
        "replicated_weights": 0.0,
        "split_weights": 0.0,
        "kv_elements": 0.0,
        "kv_split": 1,
        "decode_flops": 0.0,
        "prefill_flops": 0.0,
        "windows": ((1, None),),
        "experts": 1,
        "top_k": 1,
        "expert_weights": 0.0,
        "shared_weights": 0.0,
        "dense_weights": 0.0,
        "embedding_weights": 0.0,
    }
    return Shape(**(nothing | told))


def _work(
    shape: Shape,
    chips: Chips,
    precision: Precision,
    *,
    ranks: Array | float,
    ep: Array | float,
    tp: Array | float = 1.0,
) -> Work:
    return Work(
        shape=shape,
        chips=chips,
        layouts=layouts(ranks=ranks, tp=tp, ep=ep, slots=float(shape.experts)),
        precision=precision,
        recipe=np.full(1, -1),
        engine=np.full(1, -1),
        balance=np.zeros(1),
    )


def _precision(name: str, kv_bytes: float = 2.0) -> Precision:
    return Precision.of([name], [name], [name], np.array([kv_bytes]))


def table_of(errors: Sequence[KernelError]) -> Table:
    """As the command prints it."""
    table = Table(title="predicted over measured time of kernels alone", title_justify="left")
    for heading in ("kernel", "format", "bound by", "system"):
        table.add_column(heading, no_wrap=True)
    for heading in ("n", "median", "10 to 90 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("measured with")
    for error in errors:
        spread = f"{error.low:.2f} to {error.high:.2f}"
        table.add_row(
            error.kernel,
            error.format,
            error.bound,
            error.system,
            str(error.n),
            f"{error.ratio:.2f}",
            spread,
            ", ".join(error.backends),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of tables; default: the installed package's")
    parser.add_argument("--system", action="append", choices=list(SYSTEMS), help="only this; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        tables = [
            table
            for table in silicon_tables(options.data)
            if not options.system or table.system in options.system
        ]
        errors = kernel_errors(tables)
    except SpecError as error:
        parser.error(f"{error.what} ({error.hint})")
    if options.json:
        sys.stdout.write(json.dumps([asdict(error) for error in errors], indent=1) + "\n")
    else:
        Console(width=160).print(table_of(errors))


if __name__ == "__main__":
    main()
