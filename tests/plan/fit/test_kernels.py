"""Formulas beside measured kernels: the ratio is what the kernel takes more or less than the formula says."""

import json
from pathlib import Path

import numpy as np
import pytest

from rackscale.cost import Chips, from_priors
from rackscale.plan.fit import kernels
from rackscale.plan.fit.kernels import kernel_errors, table_of
from rackscale.plan.silicon import SYSTEMS, SiliconTable
from rackscale.specs.catalog import load_system

SYSTEM = "h200_sxm"


@pytest.fixture
def chips():
    return Chips.of([load_system(SYSTEMS[SYSTEM])])


@pytest.fixture
def held(monkeypatch):
    """Errors of one table with these columns."""

    def of(name, columns, system=SYSTEM):
        arrays = {key: np.asarray(values) for key, values in columns.items()}
        monkeypatch.setattr(kernels, "read_silicon", lambda _: arrays)
        table = SiliconTable(
            system=system, operator=name, backend="sglang", version="1", name=name, path=Path(__file__)
        )
        return kernel_errors([table], from_priors())

    return of


def share(name, chips, *groups):
    return float(from_priors().by(name, chips.generation, *groups)[0, 0])


def test_a_long_product_of_few_rows_is_bound_by_memory(held, chips):
    size = 16384
    expected = 2.0 * size * size / (chips.hbm_bytes_per_s[0] * share("linear_bandwidth", chips))
    columns = {
        "gemm_dtype": ["bfloat16"] * 3,
        "m": [1, 2, 4],
        "n": [size] * 3,
        "k": [size] * 3,
        "seconds": [2 * expected] * 3,
    }
    (error,) = held("gemm", columns)
    assert (error.kernel, error.bound, error.format, error.n) == ("dense GEMM", "HBM", "bfloat16", 3)
    assert error.ratio == pytest.approx(0.5)
    assert error.low == pytest.approx(error.high)


def test_a_product_of_many_rows_is_bound_by_arithmetic(held, chips):
    rows, size = 16384, 8192
    rate = chips.tensor_flops[1][0] * share("linear_rate", chips)
    columns = {
        "gemm_dtype": ["fp8_block"],
        "m": [rows],
        "n": [size],
        "k": [size],
        "seconds": [2.0 * rows * size * size / rate],
    }
    (error,) = held("gemm", columns)
    assert (error.bound, error.ratio) == ("tensor cores", pytest.approx(1))


def test_kernels_that_launches_are_most_of_are_left_out(held):
    columns = {"gemm_dtype": ["bfloat16"], "m": [1], "n": [64], "k": [64], "seconds": [1e-5]}
    assert held("gemm", columns) == []


def test_formats_without_a_formula_are_left_out(held):
    columns = {"gemm_dtype": ["w4a8_odd"], "m": [1], "n": [65536], "k": [65536], "seconds": [1e-3]}
    assert held("gemm", columns) == []


def test_experts_of_even_routing_are_left_out(held):
    columns = {
        "moe_dtype": ["fp8_block"] * 2,
        "num_tokens": [256, 256],
        "hidden_size": [7168] * 2,
        "inter_size": [2048] * 2,
        "topk": [8] * 2,
        "num_experts": [256] * 2,
        "moe_tp_size": [1] * 2,
        "moe_ep_size": [8] * 2,
        "distribution": ["balanced", "power_law_1.2"],
        "seconds": [1e-3] * 2,
    }
    (error,) = held("moe", columns)
    assert (error.kernel, error.n) == ("grouped GEMM, spread", 1)
    (split,) = held("moe", {**columns, "moe_tp_size": [8] * 2, "moe_ep_size": [1] * 2})
    assert split.kernel == "grouped GEMM"
    (twice,) = held("moe", {**columns, "seconds": [2e-3] * 2})
    assert twice.ratio == pytest.approx(error.ratio / 2)


def test_attention_that_decodes_reads_its_cache(held, chips):
    sequences, context = 256, 8192
    read = sequences * (context + 1) * (512 + 64) * 2.0
    expected = read / (chips.hbm_bytes_per_s[0] * share("kv_bandwidth", chips))
    columns = {
        "num_heads": [16],
        "kv_cache_dtype": ["bfloat16"],
        "batch_size": [sequences],
        "isl": [1],
        "step": [context],
        "seconds": [expected],
    }
    (error,) = held("generation_mla", columns)
    assert (error.kernel, error.bound, error.ratio) == ("MLA decode", "HBM", pytest.approx(1))


def test_attention_of_prompts_is_bound_by_arithmetic_and_windows_are_left_out(held, chips):
    heads, width, length = 32, 128, 8192
    flops = 4.0 * heads * width * length * length / 2
    expected = flops / (chips.tensor_flops[0][0] * share("attention_rate", chips))
    columns = {
        "num_heads": [heads] * 2,
        "num_key_value_heads": [8] * 2,
        "head_dim": [width] * 2,
        "kv_cache_dtype": ["bfloat16"] * 2,
        "attn_dtype": ["bfloat16"] * 2,
        "window_size": [0, 128],
        "batch_size": [1] * 2,
        "isl": [length] * 2,
        "step": [0] * 2,
        "seconds": [expected] * 2,
    }
    (error,) = held("context_attention", columns)
    assert (error.kernel, error.bound, error.n) == ("GQA prefill", "tensor cores", 1)
    assert error.ratio == pytest.approx(1, rel=1e-3)


def test_of_all_reduces_those_of_graphs_count(held):
    columns = {
        "num_gpus": [8, 8],
        "message_size": [2**26, 2**26],
        "kernel_source": ["AllReduce_graph", "AllReduce_eager"],
        "seconds": [1e-3, 9e-3],
    }
    (error,) = held("custom_allreduce", columns)
    assert (error.kernel, error.bound, error.n) == ("all-reduce", "link", 1)


def test_of_a_backends_versions_the_largest_table_counts(monkeypatch, tmp_path):
    columns = {"gemm_dtype": ["bfloat16"], "m": [1], "n": [65536], "k": [65536], "seconds": [1e-2]}
    monkeypatch.setattr(
        kernels, "read_silicon", lambda _: {key: np.asarray(values) for key, values in columns.items()}
    )
    tables = []
    for backend, version, size in (("vllm", "1", 9), ("vllm", "2", 5), ("sglang", "3", 1)):
        path = tmp_path / f"{version}.parquet"
        path.write_bytes(b"x" * size)
        tables.append(
            SiliconTable(
                system=SYSTEM, operator="gemm", backend=backend, version=version, name="gemm", path=path
            )
        )
    (error,) = kernel_errors(tables, from_priors())
    assert (error.backends, error.n) == (("sglang 3", "vllm 1"), 2)


def test_tables_of_other_systems_and_kernels_are_left_out(held):
    assert held("gemm", {}, system="l40s") == []
    assert held("kda", {}) == []


def test_the_command_prints_a_table_or_json(monkeypatch, capsys, tmp_path):
    error = kernels.KernelError(
        kernel="dense GEMM",
        system=SYSTEM,
        backends=("sglang 1",),
        format="fp8",
        bound="HBM",
        n=3,
        ratio=1.25,
        low=1.0,
        high=1.5,
    )
    assert [next(iter(column.cells)) for column in table_of([error]).columns][-4:-1] == [
        "3",
        "1.25",
        "1.00 to 1.50",
    ]
    monkeypatch.setattr(kernels, "silicon_tables", lambda _: [])
    monkeypatch.setattr(kernels, "kernel_errors", lambda _: [error])
    kernels.main(["--json"])
    assert json.loads(capsys.readouterr().out)[0]["ratio"] == 1.25
    kernels.main([])
    assert "1.00 to 1.50" in capsys.readouterr().out


def test_the_command_refuses_a_folder_without_tables(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        kernels.main(["--data", str(tmp_path)])
    assert error.value.code == 2
    assert "has no kernel tables" in capsys.readouterr().err
