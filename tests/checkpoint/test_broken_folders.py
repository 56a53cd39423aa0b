"""A folder that is wrong in any way is refused, by the name of what is wrong.

Each case breaks a whole folder; all of its words must be in the error's text.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from folders import INDEX, WEIGHTS, MakeFolder, rewrite, set_config, set_entry, set_header, set_index

from rackscale.checkpoint import open_metadata
from rackscale.core import SpecError


def truncate(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def only(folder: Path, *names: str) -> None:
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()


def pickles(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def folder_for_file(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def doubled(folder: Path) -> None:
    (folder / "other.safetensors").write_bytes((folder / WEIGHTS).read_bytes())


NORM = "model.norm.weight"
GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing shard": (
        lambda f: set_index(f, {NORM: "model-00002-of-00002.safetensors"}),
        ("model-00002-of-00002.safetensors", "1 of 1"),
    ),
    "index lies": (lambda f: set_index(f, {"ghost.weight": WEIGHTS}), ("ghost.weight", WEIGHTS, INDEX)),
    "index without map": (lambda f: set_index(f, None), (INDEX, "weight_map")),
    "index maps to numbers": (lambda f: set_index(f, {NORM: 3}), (INDEX, "weight_map")),
    "index of endless name": (lambda f: set_index(f, {NORM: "x" * 5000}), ("1 of 1",)),
    "index leads out": (lambda f: set_index(f, {NORM: "../" + WEIGHTS}), ("../" + WEIGHTS,)),
    "index leads to the folder": (lambda f: set_index(f, {NORM: ".."}), ("..",)),
    "index is no JSON": (lambda f: (f / INDEX).write_bytes(b"{"), (INDEX,)),
    "shard is a folder": (folder_for_file, (WEIGHTS,)),
    "one tensor twice": (doubled, ("other.safetensors", WEIGHTS)),
    "truncated": (truncate, (WEIGHTS, "truncated")),
    "empty file": (lambda f: (f / WEIGHTS).write_bytes(b""), (WEIGHTS,)),
    "shape": (lambda f: set_entry(f, NORM, shape=[8, 8]), (NORM, WEIGHTS, "[8, 8]", "[64]")),
    "expert's shape": (lambda f: set_entry(f, GATE, shape=[64, 32]), (GATE, "[64, 32]", "[32, 64]")),
    "missing tensor": (lambda f: rewrite(f, lambda h: h.pop(GATE)), (GATE, "deepseek_v3")),
    "integers": (lambda f: set_entry(f, NORM, dtype="I16"), (NORM, WEIGHTS, "I16")),
    "unknown dtype": (lambda f: set_entry(f, NORM, dtype="F7"), (NORM, WEIGHTS)),
    "dtype of other size": (lambda f: set_entry(f, NORM, dtype="F32"), (NORM, WEIGHTS)),
    "negative offsets": (lambda f: set_entry(f, NORM, data_offsets=[-128, 0]), (NORM, WEIGHTS)),
    "offsets beyond": (lambda f: set_entry(f, NORM, data_offsets=[2**40, 2**40 + 128]), (NORM, WEIGHTS)),
    "offsets reversed": (lambda f: set_entry(f, NORM, data_offsets=[128, 0]), (NORM, WEIGHTS)),
    "three offsets": (lambda f: set_entry(f, NORM, data_offsets=[0, 64, 128]), (NORM, WEIGHTS)),
    "offsets of text": (lambda f: set_entry(f, NORM, data_offsets="ab"), (NORM, WEIGHTS)),
    "negative shape": (lambda f: set_entry(f, NORM, shape=[-8, -8]), (NORM, WEIGHTS)),
    "shape of text": (lambda f: set_entry(f, NORM, shape=[10**12, "x"]), (NORM, WEIGHTS)),
    "shape of lists": (lambda f: set_entry(f, NORM, shape=[10**12, [0]]), (NORM, WEIGHTS)),
    "shape of fractions": (lambda f: set_entry(f, NORM, shape=[10**400, 0.5]), (NORM, WEIGHTS)),
    "shape of truths": (lambda f: set_entry(f, NORM, shape=[64, True]), (NORM, WEIGHTS)),
    "shape of many axes": (lambda f: set_entry(f, NORM, shape=[2**62] * 50_000), (NORM, WEIGHTS)),
    "entry is a list": (lambda f: rewrite(f, lambda h: h.update({NORM: []})), (NORM, WEIGHTS)),
    "header bomb": (lambda f: set_header(f, b"{}", length=2**63), (WEIGHTS, str(2**63))),
    "header is longer than the file": (lambda f: set_header(f, b"{}", length=3), (WEIGHTS,)),
    "header of nests": (lambda f: set_header(f, b"[" * 200_000), (WEIGHTS,)),
    "header is a list": (lambda f: set_header(f, b"[]"), (WEIGHTS,)),
    "header is no text": (lambda f: set_header(f, b"\xff\xfe\x00\x80"), (WEIGHTS,)),
    "unknown architecture": (
        lambda f: set_config(f, architectures=["GPT2LMHeadModel"]),
        ("architectures", "config.json", "GPT2LMHeadModel", "DeepseekV3ForCausalLM"),
    ),
    "architectures is a number": (lambda f: set_config(f, architectures=3), ("architectures", "config.json")),
    "unknown rope": (
        lambda f: set_config(f, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}),
        ("longrope", "config.json"),
    ),
    "rope is a number": (lambda f: set_config(f, rope_parameters=3), ("rope_parameters", "config.json")),
    "rope without factor": (
        lambda f: set_config(f, rope_parameters={"rope_type": "yarn"}),
        ("factor", "config.json"),
    ),
    "rope factor of zero": (
        lambda f: set_config(f, rope_parameters={"rope_type": "linear", "factor": 0}),
        ("factor", "config.json"),
    ),
    "theta is negative": (
        lambda f: set_config(f, rope_parameters={"rope_theta": -1.0}),
        ("rope_theta", "config.json"),
    ),
    "gelu": (lambda f: set_config(f, hidden_act="gelu"), ("hidden_act", "gelu", "config.json")),
    "softmax scores": (lambda f: set_config(f, scoring_func="softmax"), ("scoring_func", "config.json")),
    "epsilon is no number": (
        lambda f: set_config(f, rms_norm_eps=float("nan")),
        ("rms_norm_eps", "config.json"),
    ),
    "epsilon is endless": (lambda f: set_config(f, rms_norm_eps=10**400), ("rms_norm_eps", "config.json")),
    "quantised": (
        lambda f: set_config(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        ("quantization_config", "gptq", "config.json"),
    ),
    "quantised, says a side file": (
        lambda f: (f / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "W4A8_AWQ"}}'),
        ("hf_quant_config.json", "W4A8_AWQ"),
    ),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{'a': 1}"), ("config.json",)),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), ("config.json",)),
    "config of nests": (lambda f: (f / "config.json").write_text("[" * 200_000), ("config.json",)),
    "config is missing": (lambda f: (f / "config.json").unlink(), ("config.json",)),
    "a thousand million layers": (
        lambda f: set_config(f, num_hidden_layers=10**9),
        ("num_hidden_layers", "config.json"),
    ),
    "layers are text": (lambda f: set_config(f, num_hidden_layers="3"), ("num_hidden_layers", "config.json")),
    "layers are true": (lambda f: set_config(f, num_hidden_layers=True), ("num_hidden_layers",)),
    "no layers": (lambda f: set_config(f, num_hidden_layers=0), ("num_hidden_layers", "config.json")),
    "layers are not said": (
        lambda f: set_config(f, num_hidden_layers=None),
        ("num_hidden_layers", "config.json"),
    ),
    "endless experts": (
        lambda f: set_config(f, n_routed_experts=2**60),
        ("model.layers.1.mlp.gate.weight", str(2**60)),
    ),
    "more layers than tensors": (lambda f: set_config(f, num_hidden_layers=9999), ("model.layers.3.",)),
    "more experts a token than there are": (
        lambda f: set_config(f, num_experts_per_tok=9),
        ("9 experts a token of 8", "config.json"),
    ),
    "groups of two sizes": (lambda f: set_config(f, n_group=3), ("3 groups of 16", "config.json")),
    "more groups than there are": (lambda f: set_config(f, topk_group=5), ("5 of 4 groups", "config.json")),
    "odd rotation": (lambda f: set_config(f, qk_rope_head_dim=15), ("15 elements", "config.json")),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), ("tokenizer.json",)),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"model": {'), ("tokenizer.json",)),
    "tokenizer of nothing": (lambda f: (f / "tokenizer.json").write_text("{}"), ("tokenizer.json",)),
    "tokenizer config is a list": (
        lambda f: (f / "tokenizer_config.json").write_text("[]"),
        ("tokenizer_config.json",),
    ),
    "template is no text": (
        lambda f: (f / "chat_template.jinja").write_bytes(b"\xff\xfe"),
        ("chat_template.jinja",),
    ),
    "generation config is a list": (
        lambda f: (f / "generation_config.json").write_text("[]"),
        ("generation_config.json",),
    ),
    "end token is text": (
        lambda f: (f / "generation_config.json").write_text('{"eos_token_id": "</s>"}'),
        ("eos_token_id", "generation_config.json"),
    ),
    "pickles": (pickles, ("deepseek_v3", "pickles")),
    "no weights": (lambda f: only(f, "config.json", "tokenizer.json"), ("deepseek_v3", ".safetensors")),
    "empty folder": (only, ("deepseek_v3", "config.json")),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_by_name(make_folder: MakeFolder, case: str) -> None:
    break_it, words = BROKEN[case]
    folder = make_folder()
    break_it(folder)
    with pytest.raises(SpecError) as refusal:
        open_metadata(folder)
    assert [word for word in words if word not in str(refusal.value)] == []
    assert refusal.value.hint


@pytest.mark.parametrize("kinds", [3, ["full_attention"], ["full_attention"] * 3 + [{}], ["mystery"] * 4])
def test_layer_types_that_are_wrong(make_folder: MakeFolder, kinds: object) -> None:
    folder = make_folder("gpt_oss")
    set_config(folder, layer_types=kinds)
    with pytest.raises(SpecError, match=r"layer_types in .*config\.json"):
        open_metadata(folder)


def test_key_heads_that_do_not_divide_the_query_heads(make_folder: MakeFolder) -> None:
    folder = make_folder("mixtral")
    set_config(folder, num_key_value_heads=3)
    with pytest.raises(SpecError, match=r"config\.json has 4 query heads over 3 key heads"):
        open_metadata(folder)


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nowhere is not a folder"):
        open_metadata(tmp_path / "nowhere")
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(SpecError, match=r"model\.gguf is not a folder"):
        open_metadata(file)
