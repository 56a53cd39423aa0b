"""A flag that an engine does not have cannot be written."""

import json
import tomllib
from importlib.resources import files

import pytest

from rackscale.core import SpecError
from rackscale.plan.export.flag_table import KINDS, Arguments, Variable, load_flags

FOLDER = files("rackscale.plan.export") / "flags"
TABLES = sorted(file.name.removesuffix(".toml") for file in FOLDER.iterdir() if file.name.endswith(".toml"))


def test_there_are_tables():
    assert {"vllm", "sglang", "trtllm", "dynamo-vllm", "dynamo-sglang", "dynamo-trtllm"} <= set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_each_flag_says_where_it_was_read(name):
    root = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    assert root["repo"].startswith("https://github.com/")
    assert root["licence"]
    assert root["read"]
    table = load_flags(name)
    assert table.version
    assert table.source
    for flag in table.flags.values():
        assert flag.kind in KINDS
        assert flag.meaning
        assert flag.path
        assert flag.line >= 0
        assert bool(flag.choices) == (flag.kind == "choice")
        assert bool(flag.keys) == (flag.kind == "json")
        if name in ("vllm", "sglang", "sglang-router"):
            assert flag.line > 0


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        (
            "--tensor-paralel-size",
            8,
            "vllm serve 0.31.0 has no --tensor-paralel-size: there is --tensor-parallel",
        ),
        ("--max-num-seqs", "8", "it takes int"),
        ("--max-num-seqs", True, "it takes int"),
        ("--max-num-seqs", 8.0, "it takes int"),
        ("--gpu-memory-utilization", 1, "it takes float"),
        ("--enable-eplb", 1, "it takes switch"),
        ("--all2all-backend", "magic", "it takes one of naive, pplx"),
        ("--all2all-backend", Variable("$BACKEND"), "it takes one of naive, pplx"),
        ("--eplb-config", {"experts": 8}, "it takes the keys num_redundant_experts"),
        ("--host", 8, "it takes text"),
    ],
)
def test_what_the_program_does_not_take(flag, value, says):
    arguments = Arguments(load_flags("vllm"))
    with pytest.raises(SpecError) as error:
        arguments.add(flag, value)
    assert says in str(error.value)
    assert arguments.words() == []


def test_words_of_a_command_line():
    arguments = Arguments(load_flags("vllm"))
    arguments.add_all(
        {
            "--enable-eplb": True,
            "--enable-dbo": False,
            "--max-num-seqs": None,
            "--eplb-config": {"num_redundant_experts": 8},
            "--gpu-memory-utilization": 0.9,
            "--node-rank": Variable("$RANK"),
        }
    )
    assert arguments.words() == [
        ("--enable-eplb",),
        ("--eplb-config", json.dumps({"num_redundant_experts": 8})),
        ("--gpu-memory-utilization", "0.9"),
        ("--node-rank", "$RANK"),
    ]


def test_dots_nest_in_a_configuration():
    arguments = Arguments(load_flags("trtllm"))
    arguments.add("max_batch_size", 8)
    arguments.add("kv_cache_config.dtype", "fp8")
    arguments.add("kv_cache_config.free_gpu_memory_fraction", 0.8)
    arguments.add_all({"enable_attention_dp": False})
    assert arguments.document() == {
        "max_batch_size": 8,
        "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.8},
        "enable_attention_dp": False,
    }


def test_dynamo_hands_on_what_the_engine_has():
    assert "--trtllm.moe_config.load_balancer.num_slots" in load_flags("dynamo-trtllm").flags
    assert "--tp-size" in load_flags("dynamo-sglang").flags
    assert "--eplb-config" in load_flags("dynamo-vllm").flags
