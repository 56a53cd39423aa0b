"""Tables of kernels: found by their folders, read as they are, refused where they are not there."""

import importlib.util
import sys

import numpy as np
import pytest

from rackscale.core import SpecError
from rackscale.plan import silicon
from rackscale.plan.silicon import installed_data, read_silicon, silicon_tables


def place(data, *parts):
    path = data.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_tables_are_found_by_their_folders_in_order(tmp_path):
    place(tmp_path, "h200_sxm", "moe", "sglang", "0.5.14", "moe_perf.parquet")
    gemm = place(tmp_path, "gb200", "gemm", "trtllm", "1.3.0", "gemm_perf.parquet")
    place(tmp_path, "gb200", "gemm", "trtllm", "1.3.0", "reuse.yaml")
    first, second = silicon_tables(tmp_path)
    assert (first.system, first.operator, first.backend, first.version) == (
        "gb200",
        "gemm",
        "trtllm",
        "1.3.0",
    )
    assert (first.name, first.path, second.name) == ("gemm", gemm, "moe")


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(SpecError, match="has no kernel tables"):
        silicon_tables(tmp_path)


def test_a_package_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(silicon, "PACKAGE", "surely_no_such_package")
    with pytest.raises(SpecError, match="is not installed"):
        installed_data()


def test_the_installed_package_is_found_without_running_it(tmp_path, monkeypatch):
    package = tmp_path / "kernels_of_nobody"
    (package / "systems" / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('run')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(silicon, "PACKAGE", package.name)
    assert installed_data() == package / "systems" / "data"


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    place(tmp_path, "gb200", "gemm", "trtllm", "1.3.0", "gemm_perf.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (table,) = silicon_tables(tmp_path)
    with pytest.raises(SpecError, match="pyarrow is not installed"):
        read_silicon(table)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow: extra `silicon`")
def test_columns_are_those_of_the_file_and_seconds(tmp_path):
    import pyarrow as pa  # noqa: PLC0415 (an optional extra)
    from pyarrow import parquet  # noqa: PLC0415 (an optional extra)

    path = place(tmp_path, "gb200", "gemm", "trtllm", "1.3.0", "gemm_perf.parquet")
    (table,) = silicon_tables(tmp_path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_silicon(table)
    parquet.write_table(pa.table({"m": [1, 2], "gemm_dtype": ["fp8", "nvfp4"], "latency": [0.5, 2.0]}), path)
    columns = read_silicon(table)
    np.testing.assert_array_equal(columns["m"], [1, 2])
    assert columns["gemm_dtype"].tolist() == ["fp8", "nvfp4"]
    np.testing.assert_allclose(columns["seconds"], [0.5e-3, 2e-3])


@pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None or importlib.util.find_spec(silicon.PACKAGE) is None,
    reason="aiconfigurator-core: extra `silicon`",
)
def test_the_packages_own_tables_can_be_read():
    tables = silicon_tables()
    assert {"h200_sxm", "gb200"} <= {table.system for table in tables}
    table = next(table for table in tables if (table.system, table.name) == ("h200_sxm", "gemm"))
    columns = read_silicon(table)
    assert (columns["seconds"] > 0).all()
    assert {"m", "n", "k", "gemm_dtype"} <= columns.keys()
