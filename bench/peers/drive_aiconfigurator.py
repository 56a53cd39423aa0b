"""aiconfigurator in its own environment: `drive_aiconfigurator.py FILE` predicts the records of a JSON list.

Each goes the documented way: its adapter of InferenceX records, then `cli_estimate` on the exact layout, from
measured kernels (SILICON), and where those are missing from what it derives of them (HYBRID). Prints JSON."""

import importlib
import importlib.metadata
import json
import logging
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

MODES = ("SILICON", "HYBRID")
DRAFTS, ACCEPTED = 1, 0.85  # of its own example.yaml; its adapter wants them said
SAID_EVERY = 25


def predict(record: dict[str, Any], mode: str) -> dict[str, Any]:
    """Seconds, tokens per second and GPU, and what it warns of. Raises what aiconfigurator raises."""
    from aiconfigurator.cli.api import cli_estimate  # noqa: PLC0415 (its import is timed)
    from aiconfigurator.sdk.config_adapter.api import adapt_config, to_cli_estimate_kwargs  # noqa: PLC0415
    from aiconfigurator.sdk.config_adapter.inferencex import InferenceXSource  # noqa: PLC0415
    from aiconfigurator.sdk.config_adapter.schema import AdapterOverrides  # noqa: PLC0415

    config, benchmark = record["config"], record["benchmark"]
    drafts = {} if config["spec_method"] == "none" else {"nextn": DRAFTS, "nextn_accepted": ACCEPTED}
    overrides = AdapterOverrides(database_mode=mode, **drafts)
    (outcome,) = adapt_config(InferenceXSource(config, benchmark), overrides).outcomes
    if outcome.request is None:
        raise ValueError("; ".join(item.message for item in outcome.diagnostics if item.severity == "error"))
    result = cli_estimate(**to_cli_estimate_kwargs(outcome.request))
    tokens = benchmark["isl"] + benchmark["osl"]
    found = {
        "tpot": result.tpot / 1e3,
        "ttft": result.ttft / 1e3,
        "tokens_per_s_per_gpu": float(result.raw["seq/s/gpu"]) * tokens,
    }
    if not all(math.isfinite(value) and value > 0 for value in found.values()):
        raise ValueError("the prediction is not a positive number")
    return {
        **{name: float(value) for name, value in found.items()},
        "mode": mode,
        "data": f"{result.backend_name} {result.backend_version}",
        "all_to_all_of_another_width": bool(result.moe_comm_fallbacks),
        "cache_too_small": bool(result.kv_cache_warning),
    }


def answer(record: dict[str, Any]) -> dict[str, Any]:
    """A prediction, or why there is none: of the last mode tried. cpu_s: other processes may be busy."""
    start, reasons = time.process_time(), []
    for mode in MODES:
        try:
            found = predict(record, mode)
        except Exception as error:  # noqa: BLE001 (whatever it raises is its answer)
            reasons.append(f"{type(error).__name__}: {error}")
        else:
            return {**found, "silicon": reasons, "cpu_s": time.process_time() - start}
    return {"refused": reasons[-1], "silicon": reasons[:1], "cpu_s": time.process_time() - start}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    records = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    start = time.process_time()
    importlib.import_module("aiconfigurator.cli.api")
    import_s = time.process_time() - start
    answers = []
    for number, record in enumerate(records):
        answers.append(answer(record))
        if number % SAID_EVERY == 0:
            sys.stderr.write(f"row {number} of {len(records)}: {json.dumps(answers[-1])[:160]}\n")
    visit = {
        "import_s": import_s,
        "answers": answers,
        "versions": {
            name: importlib.metadata.version(name) for name in ("aiconfigurator", "aiconfigurator-core")
        },
    }
    print("\n" + json.dumps({"visit": visit}), flush=True)


if __name__ == "__main__":
    main()
