"""InferenceX result files: a configuration and what it reached in each row.

Columns as InferenceX exports them (github.com/SemiAnalysisAI/InferenceX). Traps, see facts/claim.md: numbers
of chips are wrong in rows of one node, where `decode_tp` is right; lengths are drawn from 80 to 100 % of the
nominal ones; rows of several nodes that say tp 1 and ep 1 do not tell their layout.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rackscale.core import SpecError
from rackscale.cost import Chips, Precision, Shape, Work
from rackscale.cost.layouts import layouts
from rackscale.cost.priors import ENGINES, GENERATIONS
from rackscale.plan.closed_loop import Case
from rackscale.specs.catalog import load_model, load_system

Array = NDArray[np.float64]
Row = Mapping[str, str]

MEAN_LENGTH = 0.9  # of the nominal one
TRAY = 4  # chips of one; ranks up to which a row that does not tell its layout is taken as one attention
# Shares of memory that recipes give to weights and cache together (SGLang's mem_fraction_static at its
# highest), and of what is left to the cache (TensorRT-LLM's free_gpu_memory_fraction).
CACHE_OF_ALL = 0.94
CACHE_OF_REST = 0.8
EPOCH = date(2026, 2, 1)
DAYS_PER_MONTH = 30.4
EARLY_UNTIL = date(2025, 12, 17)
STALLS_UNTIL = date(2026, 1, 15)

SYSTEMS = {
    "h100": "hgx-h100",
    "h200": "hgx-h200",
    "b200": "hgx-b200",
    "b300": "hgx-b300",
    "gb200": "gb200-nvl72",
    "gb300": "gb300-nvl72",
    "mi300x": "mi300x",
    "mi325x": "mi325x",
    "mi355x": "mi355x",
}
MODELS = {
    "dsr1": "deepseek-r1",
    "dsv3": "deepseek-v3",
    "gptoss": "gpt-oss-120b",
    "gptoss120b": "gpt-oss-120b",
    "kimik2": "kimi-k2-instruct",
    "kimik2thinking": "kimi-k2-thinking",
    "kimik2.5": "kimi-k2.5",
    "glm4.5": "glm-4.5",
    "glm4.6": "glm-4.6",
    "minimaxm2": "minimax-m2",
    "qwen3": "qwen3-235b-a22b",
}

# Formats of routed experts, of other feed-forward parts and of attention, by what a row calls its precision.
# NVFP4 checkpoints of DeepSeek and Kimi leave attention in BF16; INT4 ones everything but routed experts.
FORMATS = {
    "fp4": ("nvfp4", "nvfp4", "bf16"),
    "nvfp4": ("nvfp4", "nvfp4", "bf16"),
    "mxfp4": ("mxfp4", "bf16", "bf16"),
    "fp8": ("fp8", "fp8", "fp8"),
    "int4": ("int4", "bf16", "bf16"),
    "bf16": ("bf16", "bf16", "bf16"),
}
NUMBERS = (
    "prefill_tp",
    "prefill_ep",
    "prefill_num_workers",
    "decode_tp",
    "decode_ep",
    "decode_num_workers",
    "num_prefill_gpu",
    "num_decode_gpu",
    "isl",
    "osl",
    "conc",
)
WORDS = ("hardware", "framework", "model", "precision", "spec_method", "disagg", "date")
TRUTHS = {"tpot": "median_tpot", "ttft": "median_ttft", "tokens_per_s_per_gpu": "tput_per_gpu"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows that can be predicted, those that cannot by the reason, and what was measured: [R] by the names of
    `TRUTHS`, NaN where a row does not say."""

    rows: Sequence[Row]
    skipped: Mapping[str, int]
    truth: Mapping[str, Array]

    def cases(self) -> list[tuple[NDArray[np.intp], Case]]:
        """Rows of one model each: their numbers, and the columns to predict them from."""
        models = np.array([_model(row) for row in self.rows])
        numbers = [np.flatnonzero(models == model) for model in dict.fromkeys(models.tolist())]
        return [(chosen, case_of([self.rows[number] for number in chosen.tolist()])) for chosen in numbers]

    def column(self, name: str) -> NDArray[np.str_]:
        """What the file says, as text."""
        return np.array([row.get(name, "") for row in self.rows])

    def configurations(self) -> NDArray[np.intp]:
        """A number for each configuration: repeated runs, whatever their date, have the same."""
        names = (*NUMBERS, *WORDS[:-1], "prefill_dp_attention", "decode_dp_attention")
        keys = [tuple(row.get(name, "") for name in names) for row in self.rows]
        order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return np.array([order[key] for key in keys], dtype=np.intp)


def read_rows(path: Path) -> Rows:
    """Raises SpecError where the file is not there, or has not the columns."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = sorted({*NUMBERS, *WORDS, *TRUTHS.values()} - set(reader.fieldnames or ()))
            if missing:
                raise SpecError(
                    f"{path} has no column {missing[0]}", hint="give a result file as InferenceX exports it"
                )
            table = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path} cannot be read: {error}", hint="give a CSV file") from None
    skipped: dict[str, int] = {}
    kept: list[Row] = []
    for row in table:
        reason = _why_not(row)
        if reason is None:
            kept.append(row)
        else:
            skipped[reason] = skipped.get(reason, 0) + 1
    truth = {name: np.array([_number(row[column]) for row in kept]) for name, column in TRUTHS.items()}
    return Rows(rows=kept, skipped=skipped, truth=truth)


def case_of(rows: Sequence[Row]) -> Case:
    """Columns of rows of one model."""

    def numbers(name: str) -> Array:
        return np.array([_number(row[name]) for row in rows])

    def flags(name: str) -> NDArray[np.bool_]:
        return np.array([_flag(row.get(name, "")) for row in rows])

    systems = [load_system(_known(_system(row))) for row in rows]
    chips = Chips.of(systems)
    told = flags("disagg")
    counted = (numbers("prefill_num_workers") > 0) & (numbers("decode_num_workers") > 0)
    apart = told & counted
    prefill_groups = np.where(apart, numbers("prefill_num_workers"), 1.0)
    decode_groups = np.where(apart, numbers("decode_num_workers"), 1.0)
    whole = np.where(told | flags("is_multinode"), numbers("num_decode_gpu"), numbers("decode_tp"))
    prefill_ranks = np.where(apart, numbers("num_prefill_gpu") / prefill_groups, whole)
    decode_ranks = np.where(apart, numbers("num_decode_gpu") / decode_groups, whole)
    shape = Shape.of(load_model(_known(_model(rows[0]))).spec)
    formats = [FORMATS[row["precision"]] for row in rows]
    experts, mlp, linear = zip(*formats, strict=True)
    kv_bytes = np.where(chips.generation == GENERATIONS.index("hopper"), 2.0, 1.0)
    precision = Precision.of(experts, mlp, linear, kv_bytes)
    engine = np.array([_engine(row["framework"]) for row in rows], dtype=np.intp)
    known = (engine >= 0) & (chips.generation >= 0)
    recipe = np.where(known, chips.generation * len(ENGINES) + engine, -1)

    def work(pool: str, ranks: Array) -> Work:
        name = pool if pool == "decode" else "prefill"
        tp, ep = (np.where(apart, numbers(f"{name}_{key}"), numbers(f"decode_{key}")) for key in ("tp", "ep"))
        data_parallel = np.where(apart, flags(f"{name}_dp_attention"), flags("decode_dp_attention"))
        untold = told & (tp == 1) & (ep == 1)
        data_parallel = np.where(untold, ranks > TRAY, data_parallel) | (told & ~counted)
        spread = np.where(untold, data_parallel, ep > 1) | (data_parallel & told)
        return Work(
            shape=shape,
            chips=chips,
            layouts=layouts(
                ranks=ranks,
                tp=np.where(data_parallel, 1.0, ranks),
                ep=np.where(spread, ranks, 1.0),
                slots=float(shape.experts),
            ),
            precision=precision,
            recipe=recipe,
            engine=engine,
            balance=np.zeros(len(rows)),
        )

    dates = [_known(_date(row["date"])) for row in rows]
    sglang_on_blackwell = (engine == ENGINES.index("sglang")) & (
        chips.generation == GENERATIONS.index("blackwell")
    )
    of_rest = engine == ENGINES.index("trtllm")
    isl, osl = numbers("isl"), numbers("osl")
    return Case(
        prefill=work("prefill", prefill_ranks),
        decode=work("decode", decode_ranks),
        prefill_groups=prefill_groups,
        decode_groups=decode_groups,
        disaggregated=apart,
        isl=MEAN_LENGTH * isl,
        osl=MEAN_LENGTH * osl,
        longest=np.where(of_rest, isl + osl, MEAN_LENGTH * (isl + osl)),
        concurrency=numbers("conc"),
        speculative=np.array([row["spec_method"] not in {"", "none"} for row in rows]),
        engine=engine,
        months=np.array([(day - EPOCH).days / DAYS_PER_MONTH for day in dates]),
        early=apart & np.array([day < EARLY_UNTIL for day in dates]),
        stalls=~told & sglang_on_blackwell & np.array([day < STALLS_UNTIL for day in dates]),
        cache_share=np.where(of_rest, CACHE_OF_REST, CACHE_OF_ALL),
        cache_of_rest=of_rest,
    )


def _why_not(row: Row) -> str | None:
    """None where a row can be predicted."""
    needed = ["isl", "osl", "conc", "num_decode_gpu", "decode_tp", "decode_ep"]
    if _flag(row["disagg"]) and _number(row["prefill_num_workers"]) > 0:
        needed += ["num_prefill_gpu", "prefill_tp", "prefill_ep"]
    reasons = {
        "flagged as a degraded run": "degraded" in row.get("suspect", ""),
        f"unknown hardware {row['hardware']}": _system(row) is None,
        f"unknown model {row['model']}": _model(row) is None,
        f"unknown precision {row['precision']}": row["precision"] not in FORMATS,
        "no lengths, concurrency, layout or number of chips": not all(
            _number(row[name]) > 0 for name in needed
        ),
        "no measured speeds": not any(_number(row[column]) > 0 for column in TRUTHS.values()),
        "no date": _date(row["date"]) is None,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _system(row: Row) -> str | None:
    return SYSTEMS.get(row["hardware"].lower().replace("_", "-").split("-")[0].split(" ")[0])


def _model(row: Row) -> str | None:
    plain = row["model"].lower().replace("-", "").replace("_", "").replace(" ", "")
    found = [name for key, name in MODELS.items() if plain.startswith(key)]
    return found[-1] if found else None


def _known(value: Any | None) -> Any:
    assert value is not None, "rows of something unknown are left out by `_why_not`"
    return value


def _engine(framework: str) -> int:
    plain = framework.lower()
    return ENGINES.index("trtllm") if "trt" in plain else ENGINES.index("sglang") if "sglang" in plain else -1


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _flag(text: str) -> bool:
    return text.strip().lower() in {"true", "1", "yes"}


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None
