"""A whole checkpoint into a format: as ModelOpt exports it, or as others' formats have it."""

import dataclasses
import json
import shutil

import pytest
import torch
from folders import set_config
from packing import is_expert, pack, rewrite_weights
from quantizing import files_of, run, tensors_of
from safetensors.torch import load_file

from rackscale.checkpoint import dequantize, open_checkpoint, quantize
from rackscale.checkpoint.codecs import Format, Packed
from rackscale.checkpoint.quantizer import (
    OutputFormat,
    RoundedEncoder,
    Scope,
    SearchEncoder,
    groups_of,
    job,
    quantize_packed,
    streams,
)
from rackscale.core import SpecError

SCALES = (".weight_scale", ".weight_scale_2", ".input_scale")
FORMATS = [OutputFormat.NVFP4_COMPRESSED_TENSORS, OutputFormat.INT4, OutputFormat.MXFP4, OutputFormat.FP8]


def same(left, right):
    return left.dtype == right.dtype and torch.equal(
        left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8)
    )


class Measured:
    """Stands in for calibration: the scales of inputs that ModelOpt measured."""

    def __init__(self, golden):
        self.tensors = tensors_of(golden)
        self.sources = open_checkpoint(golden, tokenizer_required=False).metadata.sources

    def encode(self, roles, _weights):
        return tuple(
            Packed(
                format=Format.NVFP4,
                codes=torch.empty(0),
                scales=torch.empty(0),
                input_scale=self.tensors[
                    self.sources[role].tensor.removesuffix(".weight") + ".input_scale"
                ].item(),
            )
            for role in roles
        )


def test_routed_experts_are_byte_for_byte_modelopts_export(golden_nvfp4, tmp_path):
    golden = golden_nvfp4 / "tiny_deepseek_v3_nvfp4"
    result = run(
        golden_nvfp4 / "tiny_deepseek_v3_bf16",
        tmp_path / "out",
        encoder=RoundedEncoder(Measured(golden)),
        calibration="as ModelOpt's",
    )
    expected, actual = tensors_of(golden), tensors_of(tmp_path / "out")
    assert actual.keys() == expected.keys()
    assert all(same(actual[name], expected[name]) for name in expected)
    assert result.tensors == sum(tensor.dtype == torch.uint8 for tensor in expected.values())
    assert result.bytes_after == sum(tensor.nbytes for tensor in actual.values())


@pytest.mark.parametrize("calibrated", [True, False])
def test_all_matrices_are_byte_for_byte_modelopts_export(golden_nvfp4, tmp_path, calibrated):
    golden = golden_nvfp4 / "tiny_qwen3_moe_nvfp4"
    source = tmp_path / "source"
    shutil.copytree(golden_nvfp4 / "tiny_qwen3_moe_bf16", source)
    # ModelOpt left the head out, and so does a model whose head is its embedding.
    weights = load_file(source / "model.safetensors")
    head = weights.pop("lm_head.weight")
    rewrite_weights(source, weights)
    set_config(source, tie_word_embeddings=True)
    options = {"scope": Scope.LINEAR, "calibration": "ModelOpt's" if calibrated else None}
    run(source, tmp_path / "out", encoder=RoundedEncoder(Measured(golden)) if calibrated else None, **options)
    expected, actual = tensors_of(golden), tensors_of(tmp_path / "out")
    expected = {name: tensor for name, tensor in expected.items() if calibrated or "input_scale" not in name}
    actual["lm_head.weight"] = head
    assert actual.keys() == expected.keys()
    assert all(same(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("model", "scope"), [("deepseek_v3", Scope.EXPERTS), ("qwen3_moe", Scope.LINEAR)])
def test_config_fields_are_those_of_modelopts_export(golden_nvfp4, tmp_path, model, scope):
    golden = golden_nvfp4 / f"tiny_{model}_nvfp4"
    source = tmp_path / "source"
    shutil.copytree(golden_nvfp4 / f"tiny_{model}_bf16", source)
    tied = scope == Scope.LINEAR
    if tied:
        set_config(source, tie_word_embeddings=True)
    out = tmp_path / "out"
    run(source, out, encoder=RoundedEncoder(Measured(golden)), calibration="ModelOpt's", scope=scope)
    for name in ("config.json", "hf_quant_config.json"):
        expected, actual = (json.loads((folder / name).read_bytes()) for folder in (golden, out))
        for value in (expected, actual):
            producer = value.get("quantization_config", value).pop("producer")
            assert set(producer) == {"name", "version"}
        if tied and name == "config.json":
            expected["tie_word_embeddings"] = True
        assert actual == expected
    assert (out / "generation_config.json").read_bytes() == (golden / "generation_config.json").read_bytes()


def test_without_calibration_it_is_for_weights_alone(golden_nvfp4, tmp_path):
    run(golden_nvfp4 / "tiny_deepseek_v3_bf16", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())["quantization_config"]
    assert config["quant_algo"] == "W4A16_NVFP4"
    assert "input_activations" not in config["config_groups"]["group_0"]
    checkpoint = open_checkpoint(tmp_path / "out", tokenizer_required=False)
    assert checkpoint.packed("layers.1.experts.0.gate").input_scale is None


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("scope", list(Scope))
def test_other_formats_are_read_back_as_their_reference_rounds(make_folder, tmp_path, form, scope):
    source, out = make_folder("deepseek_v3"), tmp_path / "out"
    result = run(source, out, form=form, scope=scope)
    before, after = open_checkpoint(source), open_checkpoint(out)
    name = "mxfp4-compressed-tensors" if form == OutputFormat.MXFP4 else form.value
    error = square = 0.0
    for role in before.metadata.sources:
        weight, packed = before.tensor(role), after.packed(role)
        if packed is None:
            assert torch.equal(after.tensor(role), weight)
            continue
        assert packed.format == form.packed
        if form != OutputFormat.NVFP4_COMPRESSED_TENSORS:  # scales are ModelOpt's there, and shared
            assert torch.equal(after.tensor(role), dequantize(quantize(weight, name), name))
        error += (after.tensor(role).double() - weight.double()).square().sum().item()
        square += weight.double().square().sum().item()
    assert result.mse_relative == pytest.approx(error / square, rel=1e-4)
    assert after.packed("layers.1.experts.0.down") is not None
    assert (after.packed("layers.1.shared.down") is not None) == (scope == Scope.LINEAR)
    assert after.packed("layers.1.router") is after.packed("embed") is None


def test_compressed_tensors_hold_the_numbers_of_modelopts_format(make_folder, tmp_path):
    source = make_folder("deepseek_v3")
    run(source, tmp_path / "a")
    run(source, tmp_path / "b", form=OutputFormat.NVFP4_COMPRESSED_TENSORS)
    a, b = open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "b")
    for role in a.metadata.sources:
        torch.testing.assert_close(a.tensor(role), b.tensor(role), rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["deepseek fp8", "compressed-tensors int4", "modelopt"])
def test_what_is_packed_is_decoded_first(make_folder, tmp_path, form):
    source, out = make_folder("deepseek_v3"), tmp_path / "out"
    pack(source, form, lambda name: is_expert(name) or name.endswith("o_proj.weight"))
    run(source, out, form=OutputFormat.NVFP4)
    before, after = open_checkpoint(source), open_checkpoint(out)
    gate, up = (before.tensor(f"layers.1.experts.3.{part}") for part in ("gate", "up"))
    amax = max(gate.abs().max().item(), up.abs().max().item())
    for weight, part in ((gate, "gate"), (up, "up")):
        expected = quantize_packed(weight, amax)
        packed = after.packed(f"layers.1.experts.3.{part}")
        assert torch.equal(packed.codes, expected.codes)
        assert packed.tensor_scale == expected.tensor_scale
    assert after.packed("layers.1.attn.o") is None
    dtype = after.tensor("layers.1.attn.o").dtype
    assert torch.equal(after.tensor("layers.1.attn.o"), before.tensor("layers.1.attn.o").to(dtype))


def test_search_errs_less(make_folder, tmp_path):
    source = make_folder("deepseek_v3")
    rounded = run(source, tmp_path / "rounded")
    searched = run(source, tmp_path / "searched", encoder=SearchEncoder(), method="search")
    assert 0 < searched.mse_relative < 0.95 * rounded.mse_relative


@pytest.mark.parametrize("form", [OutputFormat.NVFP4, OutputFormat.FP8])
def test_bytes_do_not_depend_on_threads_and_bands(make_folder, tmp_path, monkeypatch, form):
    source = make_folder("deepseek_v3")
    options = {"form": form, "scope": Scope.LINEAR, "shard_bytes": 100_000}
    expected = run(source, tmp_path / "1", num_threads=1, **options)
    # All matrices by all threads together, in the smallest bands.
    monkeypatch.setattr(job, "WIDE_BYTES", 0)
    monkeypatch.setattr(streams, "BAND_BYTES", 1)
    monkeypatch.setattr(streams, "BAND_MULTIPLE", 128 if form == OutputFormat.FP8 else 1)
    actual = run(source, tmp_path / "4", num_threads=4, **options)
    assert dataclasses.replace(actual, mse_relative=0) == dataclasses.replace(expected, mse_relative=0)
    assert actual.mse_relative == pytest.approx(expected.mse_relative)  # sums are over bands
    assert files_of(tmp_path / "1") == files_of(tmp_path / "4")


def test_shards_are_small_and_listed(make_folder, tmp_path):
    source, out = make_folder("deepseek_v3"), tmp_path / "out"
    run(source, out, shard_bytes=40_000)
    index = json.loads((out / "model.safetensors.index.json").read_bytes())
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(shards) > 4
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    tensors = tensors_of(out)
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert open_checkpoint(out).packed("layers.1.experts.0.down") is not None
    assert not list(tmp_path.glob("*.partial"))


def test_layers_that_the_model_does_not_use_are_decoded_too(make_folder, tmp_path):
    source, out = make_folder("deepseek_v3"), tmp_path / "out"
    weights = load_file(source / "model.safetensors")
    last = "model.layers.3.mlp.experts.0.up_proj.weight"
    weights[last] = weights["model.layers.2.mlp.experts.0.up_proj.weight"].clone()
    rewrite_weights(source, weights)
    decoded = pack(source, "deepseek fp8")
    run(source, out)
    actual = tensors_of(out)
    assert torch.equal(actual[last], decoded[last].to(actual[last].dtype))
    assert actual[last].dtype == weights["model.norm.weight"].dtype
    ignored = json.loads((out / "config.json").read_bytes())["quantization_config"]["ignore"]
    assert "model.layers.3*" in ignored


def test_numbers_that_are_not_finite_are_refused_by_name(make_folder, tmp_path):
    source = make_folder("deepseek_v3")
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    weights[name][3, 5] = float("nan")
    rewrite_weights(source, weights)
    for encoder in (None, SearchEncoder()):
        with pytest.raises(SpecError, match=f"tensor '{name}' has numbers that are not finite"):
            run(source, tmp_path / "out", encoder=encoder)


def test_fused_experts_are_refused_by_name(make_folder, tmp_path):
    with pytest.raises(SpecError, match=r"tensor 'model\.layers\.0\.mlp\.experts\.gate_up_proj'"):
        run(make_folder("gpt_oss"), tmp_path / "out")


def test_a_model_without_experts_says_what_to_do(golden_nvfp4, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(golden_nvfp4 / "tiny_qwen3_moe_bf16", source)
    set_config(source, mlp_only_layers=[0, 1])
    weights = load_file(source / "model.safetensors")
    dense = {name: tensor for name, tensor in weights.items() if ".0.mlp." in name and "experts" not in name}
    copies = {name.replace("layers.0", "layers.1"): tensor.clone() for name, tensor in dense.items()}
    rewrite_weights(source, weights | copies)
    with pytest.raises(SpecError, match="give --scope linear"):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out", scope=Scope.LINEAR).tensors == 15


def test_columns_that_are_no_whole_groups_stay_and_are_named(golden_nvfp4, tmp_path):
    source, out = golden_nvfp4 / "tiny_deepseek_v3_bf16", tmp_path / "out"
    weights = load_file(source / "model.safetensors")
    odd = tmp_path / "odd"
    shutil.copytree(source, odd)
    # 24 columns of down are no whole blocks; gate and up keep their 64.
    for name, tensor in weights.items():
        if ".experts." in name or "shared_experts" in name:
            weights[name] = tensor[:, :24].clone() if "down" in name else tensor[:24].clone()
    rewrite_weights(odd, weights)
    set_config(odd, moe_intermediate_size=24)
    result = run(odd, out)
    assert len(result.unfit) == 16
    assert result.tensors == 32
    name = "model.layers.1.mlp.experts.0.down_proj"
    assert f"{name}.weight" in result.unfit
    ignored = json.loads((out / "config.json").read_bytes())["quantization_config"]["ignore"]
    assert name in ignored
    assert torch.equal(tensors_of(out)[f"{name}.weight"], weights[f"{name}.weight"])


def test_nothing_that_fits_is_refused(make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(OutputFormat, "group", property(lambda _: 1000))
    with pytest.raises(SpecError, match="columns must be a multiple of 1000"):
        run(make_folder("deepseek_v3"), tmp_path / "out")


def test_groups_share_a_scale():
    roles = ["layers.0.attn.q", "layers.0.attn.k", "layers.0.attn.v", "layers.0.attn.o", "layers.0.ffn.gate"]
    roles += ["layers.0.ffn.up", "layers.0.ffn.down", "layers.1.attn.q_a", "layers.1.attn.kv_a", "head"]
    groups = groups_of(roles)
    assert groups[0] == ("layers.0.attn.q", "layers.0.attn.k", "layers.0.attn.v")
    assert groups[2] == ("layers.0.ffn.gate", "layers.0.ffn.up")
    assert groups[4] == ("layers.1.attn.q_a", "layers.1.attn.kv_a")
    assert len(groups) == 6
