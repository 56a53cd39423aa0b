"""Outputs that grow beside where they will be: deaths, other runs, what is in the way, and memory."""

import json
import shutil
import subprocess
import sys

import pytest
from quantizing import files_of, run

from rackscale.checkpoint.quantizer import Options, Scope, open_job
from rackscale.checkpoint.quantizer.layouts import Entry
from rackscale.checkpoint.quantizer.shard_file import ShardFile
from rackscale.core import SpecError

MEMORY = """
import resource, sys
from pathlib import Path
from rackscale.checkpoint.quantizer import Options, open_job
with open_job(Path(sys.argv[1]), Path(sys.argv[2]), Options()) as job:
    job.run(num_threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
WIDTH, HIDDEN, EXPERTS = 4096, 8192, 5
OLMOE = {
    "architectures": ["OlmoeForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 64,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "vocab_size": 16,
    "dtype": "bfloat16",
}


def test_memory_holds_two_of_the_largest_tensor_and_a_gibibyte(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(OLMOE))
    layer = "model.layers.0"
    shapes = {"model.embed_tokens.weight": (16, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
        shapes[f"{layer}.{norm}.weight"] = (HIDDEN,)
    shapes |= {f"{layer}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
    shapes[f"{layer}.mlp.gate.weight"] = (EXPERTS, HIDDEN)
    for expert in range(EXPERTS):
        for part, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
            shapes[f"{layer}.mlp.experts.{expert}.{part}_proj.weight"] = shape
    entries = [Entry(name, "BF16", shape) for name, shape in shapes.items()]
    with ShardFile(source / "model.safetensors", entries) as file:
        file.finish()  # a sparse file: zeros that no disk holds
    command = [sys.executable, "-c", MEMORY, str(source), str(tmp_path / "out")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    largest = max(entry.num_bytes for entry in entries)
    assert peak < 2 * largest + 2**30 < sum(entry.num_bytes for entry in entries)


KILLED = """
import os, signal, sys
from pathlib import Path
from rackscale.checkpoint.quantizer import Options, open_job
source, target, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
calls = 0
def count(num_bytes):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
with open_job(source, target, Options(shard_bytes=40_000)) as job:
    job.run(on_progress=count, num_threads=2)
"""


@pytest.mark.parametrize("last", [1, 60])
def test_a_killed_run_goes_on_to_the_same_bytes(make_folder, tmp_path, last):
    source, out, partial = make_folder("deepseek_v3"), tmp_path / "out", tmp_path / "out.partial"
    expected = run(source, tmp_path / "whole", shard_bytes=40_000)
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(last)]
    assert subprocess.run(command, check=False).returncode == -9
    assert not out.exists()
    finished = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
    with (partial / ".quantize.jsonl").open("a") as journal:
        journal.write('["model-0')  # as far as a line came
    assert run(source, out, shard_bytes=40_000) == expected
    assert files_of(out) == files_of(tmp_path / "whole")
    assert last == 1 or finished
    for name, written in finished.items():
        assert (out / name).stat().st_mtime_ns == written
    assert not partial.exists()


def test_a_finished_shard_that_was_cut_is_written_again(make_folder, tmp_path):
    source, out, partial = make_folder("deepseek_v3"), tmp_path / "out", tmp_path / "out.partial"
    run(source, tmp_path / "whole", shard_bytes=40_000)
    options = Options(shard_bytes=40_000)

    def stop(_):
        if len(list(partial.glob("*.safetensors"))) == 3:
            raise InterruptedError

    with open_job(source, out, options) as job, pytest.raises(InterruptedError):
        job.run(on_progress=stop)
    first = min(partial.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1])
    run(source, out, shard_bytes=40_000)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_draft_of_something_else_is_refused(make_folder, tmp_path):
    source, out = make_folder("deepseek_v3"), tmp_path / "out"
    with open_job(source, out, Options()) as job:
        (job.draft.folder / "model.safetensors").touch()
    with pytest.raises(SpecError, match="begun with another source or other options"):
        run(source, out, scope=Scope.LINEAR)
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    with pytest.raises(SpecError, match="begun with another source"):
        run(source, out)


def test_a_draft_of_nothing_does_not_stay(make_folder, tmp_path):
    with open_job(make_folder("deepseek_v3"), tmp_path / "out", Options()) as job:
        job.draft.scratch.mkdir()
    assert not list(tmp_path.glob("*.partial"))


def test_two_runs_do_not_share_a_draft(make_folder, tmp_path):
    source, out = make_folder("deepseek_v3"), tmp_path / "out"
    with open_job(source, out, Options()), pytest.raises(SpecError, match="written by another run"):
        run(source, out)


def test_what_is_there_is_not_touched(make_folder, tmp_path):
    source, out = make_folder("deepseek_v3"), tmp_path / "out"
    out.mkdir()
    run(source, out)  # an empty folder is no loss
    with pytest.raises(SpecError, match="is there already"):
        run(source, out)
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "precious").touch()
    with pytest.raises(SpecError, match="in the way"):
        run(source, tmp_path / "other")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(make_folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SpecError, match=r"0\.0 GB free"):
        run(make_folder("deepseek_v3"), tmp_path / "out")
