"""Kernels measured alone: the tables of aiconfigurator-core, read as data.

The package (Apache-2.0) keeps files systems/data/SYSTEM/OPERATOR/BACKEND/VERSION/NAME_perf.parquet. They are
read where it is installed (extra `silicon`), or from a folder of the same form; none of its code runs.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError

PACKAGE = "aiconfigurator_core"
INSTALL = "pip install 'rackscale[silicon]' brings it"
SUFFIX = "_perf"
MS_PER_S = 1e3

# Its names of systems, and the catalog's.
SYSTEMS = {
    "h100_sxm": "hgx-h100",
    "h200_sxm": "hgx-h200",
    "b200_sxm": "hgx-b200",
    "b300_sxm": "hgx-b300",
    "gb200": "gb200-nvl72",
    "gb300": "gb300-nvl72",
}


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class SiliconTable:
    """A file of measurements. system, operator, backend and version as the package calls them; name: of the
    kernels in it, such as "gemm" or "generation_mla"."""

    system: str
    operator: str
    backend: str
    version: str
    name: str
    path: Path


def installed_data() -> Path:
    """The folder of tables of the installed package. Raises SpecError where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    places = [] if found is None else list(found.submodule_search_locations or ())
    for place in places:
        folder = Path(place) / "systems" / "data"
        if folder.is_dir():
            return folder
    raise SpecError(f"{PACKAGE} is not installed", hint=INSTALL)


def silicon_tables(data: Path | None = None) -> Sequence[SiliconTable]:
    """All tables of a folder, in order; by default of the installed package. Raises SpecError where there is
    none."""
    folder = installed_data() if data is None else data
    found = []
    for path in folder.glob(f"*/*/*/*/*{SUFFIX}.parquet"):
        system, operator, backend, version = path.relative_to(folder).parts[:-1]
        name = path.stem.removesuffix(SUFFIX)
        found.append(
            SiliconTable(
                system=system, operator=operator, backend=backend, version=version, name=name, path=path
            )
        )
    if not found:
        raise SpecError(f"{folder} has no kernel tables", hint=f"it holds SYSTEM/OPERATOR/...; {INSTALL}")
    return sorted(found)


def read_silicon(table: SiliconTable) -> Mapping[str, NDArray[Any]]:
    """Columns by name, [R] each, as the file has them; and "seconds" where it has a latency, which is in ms.
    Raises SpecError where pyarrow is missing, or the file is no Parquet file."""
    try:
        import pyarrow as pa  # noqa: PLC0415 (an optional extra)
        from pyarrow import parquet  # noqa: PLC0415 (an optional extra)
    except ImportError:
        raise SpecError("pyarrow is not installed", hint=INSTALL) from None
    try:
        whole = parquet.read_table(table.path)
    except (OSError, pa.ArrowInvalid) as error:
        raise SpecError(f"{table.path} cannot be read: {error}", hint="give a Parquet file") from None
    columns: dict[str, NDArray[Any]] = {
        name: whole[name].to_numpy(zero_copy_only=False) for name in whole.column_names
    }
    if "latency" in columns:
        columns["seconds"] = columns["latency"].astype(np.float64) / MS_PER_S
    return columns
