"""What low-bit formats cost: bits per byte of a text, by format, method and scope.

    python bench/quality.py                       # the bundled model over all of models/heldout.txt
    python bench/quality.py --bytes 40000         # over its first part
    python bench/quality.py --model FOLDER --scopes linear --name smollm2-135m --bytes 20000

Each row is a checkpoint that `rackscale quantize` writes, computed by the torch reference in fp32 but for the
rows that name their activations. Adds the rows to bench/results/quality.json, in place of older ones of the
same name, and prints them.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from machine import machine

from rackscale.core import SpecError
from rackscale.runtime.local import LocalOptions, open_rank
from rackscale.runtime.score import score

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "quality.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """How a checkpoint is made, as `rackscale quantize` spells it, and what its activations are."""

    format: str
    method: str = "rtn"
    calibrated: bool = False
    activations: str = "fp32"

    @property
    def label(self) -> str:
        words = [self.format]
        if self.format.startswith("nvfp4"):
            words.append(self.method + (" + calibrate" if self.calibrated and self.method != "rtn" else ""))
        return " ".join(words)


VARIANTS = (
    Variant(format="fp8-128x128"),
    Variant(format="int4-g32"),
    Variant(format="mxfp4"),
    Variant(format="nvfp4"),
    Variant(format="nvfp4", method="search"),
    Variant(format="nvfp4", method="search", calibrated=True),
    Variant(format="nvfp4", calibrated=True, activations="nvfp4"),
    Variant(format="nvfp4", method="search", calibrated=True, activations="nvfp4"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """bits: of information in the text, by the model. increase: of bits over those of the bf16 weights."""

    model: str
    scope: str
    format: str
    activations: str
    bits_per_byte: float
    perplexity: float
    increase_percent: float
    perplexity_increase_percent: float
    text_bytes: int
    quantize_s: float


class Bench:
    """One model and one text."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        text = options.text.read_bytes()[: options.bytes]
        self.text = text.decode(errors="ignore")
        self.num_bytes = len(self.text.encode())
        self.base_nats, self.num_tokens = self.nats(options.model, "fp32")

    def nats(self, model: Path, activations: str) -> tuple[float, int]:
        """Of the text, and how many tokens they are of."""
        kernels = "native" if activations == "nvfp4" else "reference"
        sizes = LocalOptions(
            kernels=kernels,
            activations=activations,
            max_model_len=1024,
            block_size=16,
            max_batched_tokens=1024,
            max_running=1,
        )
        checkpoint, deployment, rank = open_rank(model, sizes)
        torch.set_num_threads(self.options.threads)
        assert checkpoint.tokenizer is not None, "open_rank requires one unless told otherwise"
        begin = checkpoint.generation.bos_token_id
        tokens = [*([] if begin is None else [begin]), *checkpoint.tokenizer.encode(self.text)]
        return score(rank, tokens, deployment.max_model_len), len(tokens) - 1

    def row(self, scope: str, label: str, model: Path, activations: str, quantize_s: float) -> Row:
        """Measure a checkpoint. Raises SpecError where the kernels have no such activations."""
        nats, _ = self.nats(model, activations)
        return Row(
            model=self.options.name,
            scope=scope,
            format=label,
            activations=activations,
            bits_per_byte=nats / math.log(2) / self.num_bytes,
            perplexity=math.exp(nats / self.num_tokens),
            increase_percent=100 * (nats / self.base_nats - 1),
            perplexity_increase_percent=100 * math.expm1((nats - self.base_nats) / self.num_tokens),
            text_bytes=self.num_bytes,
            quantize_s=quantize_s,
        )

    def quantised(self, variant: Variant, scope: str, scratch: Path) -> tuple[Path, float]:
        """The folder, and the seconds that it took to make."""
        words = [variant.format, scope, variant.method, *(["calibrated"] if variant.calibrated else [])]
        target = scratch / "-".join(words)
        if target.exists():
            return target, 0.0
        command = [sys.executable, "-m", "rackscale.cli", "quantize", str(self.options.model), str(target)]
        command += ["--format", variant.format, "--scope", scope, "--method", variant.method, "--json"]
        if variant.calibrated:
            command += ["--calibrate", str(self.options.calibration)]
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return target, time.monotonic() - start


def main() -> None:
    """Measure, print and write."""
    options = _options()
    torch.set_num_threads(options.threads)
    bench = Bench(options)
    keep(bench.row("-", "bf16 weights", options.model, "fp32", 0.0))
    if "bf16" in options.activations:
        keep(bench.row("-", "bf16 weights", options.model, "bf16", 0.0))
    variants = [variant for variant in VARIANTS if variant.activations in options.activations]
    with tempfile.TemporaryDirectory() as made:
        scratch = options.work or Path(made)
        for scope in options.scopes:
            for variant in variants:
                try:
                    folder, seconds = bench.quantised(variant, scope, scratch)
                    keep(bench.row(scope, variant.label, folder, variant.activations, seconds))
                except SpecError as error:
                    print(f"left out: {scope} {variant.label} {variant.activations} ({error})", flush=True)


def keep(row: Row) -> None:
    """Print a row, and put it in the results."""
    print(
        f"{row.model:14} {row.scope:8} {row.format:24} {row.activations:6} {row.bits_per_byte:8.4f}"
        f" {row.increase_percent:+8.3f} %  ppl {row.perplexity:8.3f}"
        f" {row.perplexity_increase_percent:+7.2f} %  {row.quantize_s:6.1f} s",
        flush=True,
    )
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    key = ("model", "scope", "format", "activations")
    new = asdict(row)
    rows = [old for old in results["rows"] if any(old[name] != new[name] for name in key)]
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": [*rows, new]}, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "austen-moe")
    parser.add_argument("--name", default="austen-moe")
    parser.add_argument("--text", type=Path, default=ROOT / "models" / "heldout.txt")
    parser.add_argument("--calibration", type=Path, default=ROOT / "models" / "calibration.txt")
    parser.add_argument("--bytes", type=int, help="of the text, from its beginning; all of it by default")
    parser.add_argument("--scopes", nargs="+", default=["experts", "linear"], choices=["experts", "linear"])
    kinds = ["fp32", "bf16", "nvfp4"]
    parser.add_argument("--activations", nargs="+", default=kinds, choices=kinds)
    parser.add_argument(
        "--work", type=Path, help="where checkpoints are kept, and taken from; nowhere by default"
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
