"""Checkpoints in every format: each tensor in the format that it is in, whatever the config's lists say."""

import mmap
import shutil
from pathlib import Path

import pytest
import torch
from folders import WEIGHTS, MakeFolder, set_config
from golden_ranks import logits_by_pieces, make_rank
from packing import FORMS, MODELOPT, pack, pack_gpt_oss, rewrite_weights, set_side_file
from safetensors.torch import load_file

from rackscale.checkpoint import Checkpoint, open_checkpoint
from rackscale.checkpoint.codecs import Format, Packed
from rackscale.checkpoint.numerics import e2m1
from rackscale.runtime import rope
from rackscale.specs import RopeSpec

NVFP4_MODELS = ("qwen3_moe", "deepseek_v3")


def nvfp4_folder(golden_nvfp4: Path, model: str) -> Path:
    return golden_nvfp4 / f"tiny_{model}_nvfp4"


def value_of(packed: Packed) -> torch.Tensor:
    """fp64, by the contract of Packed alone."""
    rows, columns = packed.shape
    scales = packed.scales
    match packed.format:
        case Format.FP8:
            codes, block = packed.codes.view(torch.float8_e4m3fn).double(), 128
            scales = scales.repeat_interleave(128, 0)[:rows]
        case Format.INT4:
            codes, block = e2m1.unpack(packed.codes).double() - 8, 32
        case Format.MXFP4:
            codes, block, scales = e2m1.values_of(packed.codes), 32, torch.exp2(scales.double() - 127)
        case Format.NVFP4:
            codes, block = e2m1.values_of(packed.codes), 16
            scales = scales.view(torch.float8_e4m3fn)
    spread = scales.double().repeat_interleave(block, 1)[:, :columns]
    return codes.double() * spread * packed.tensor_scale


def assert_packed(checkpoint: Checkpoint, role: str, form: Format) -> None:
    """The packed form says what the decoded one says."""
    packed = checkpoint.packed(role)
    assert packed is not None
    assert packed.format == form
    tensor = checkpoint.tensor(role)
    assert packed.shape == tensor.shape
    assert packed.codes.dtype == torch.uint8
    assert packed.codes.stride(1) == 1
    assert torch.allclose(value_of(packed), tensor.double(), rtol=2.0**-22, atol=0)


@pytest.mark.parametrize("model", NVFP4_MODELS)
def test_every_weight_of_an_export_of_modelopt(golden_nvfp4: Path, model: str) -> None:
    folder = nvfp4_folder(golden_nvfp4, model)
    checkpoint = open_checkpoint(folder, tokenizer_required=False)
    golden, tensors = load_file(folder / "golden.safetensors"), load_file(folder / WEIGHTS)
    seen = set()
    for role, source in checkpoint.metadata.sources.items():
        expected = golden.get(f"dequant.{source.tensor}")
        if expected is None:
            assert checkpoint.packed(role) is None
            assert torch.equal(checkpoint.tensor(role), tensors[source.tensor]), role
            continue
        seen.add(source.tensor)
        assert torch.equal(checkpoint.tensor(role), expected), role
        assert_packed(checkpoint, role, Format.NVFP4)
        packed = checkpoint.packed(role)
        assert packed.input_scale == tensors[source.tensor.removesuffix("weight") + "input_scale"].item()
    assert {f"dequant.{name}" for name in seen} == {name for name in golden if name.startswith("dequant.")}


@pytest.fixture
def coarse_rope(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden logits are of a model that was cast to bf16 whole, frequencies of rotations included."""
    exact = rope._frequencies

    def rounded(spec: RopeSpec) -> tuple[torch.Tensor, float]:
        frequencies, factor = exact(spec)
        return frequencies.bfloat16().float(), factor

    monkeypatch.setattr(rope, "_frequencies", rounded)


@pytest.mark.usefixtures("coarse_rope")
@pytest.mark.parametrize("model", NVFP4_MODELS)
def test_logits_of_an_export_of_modelopt(golden_nvfp4: Path, model: str) -> None:
    folder = nvfp4_folder(golden_nvfp4, model)
    golden = load_file(folder / "golden.safetensors")
    rank = make_rank(open_checkpoint(folder, tokenizer_required=False), "reference")
    logits = logits_by_pieces(rank, golden["input_ids"], [32])
    expected = golden["logits_nvfp4_weights_fp32_math"]
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_an_older_export_says_it_in_a_file_of_its_own(golden_nvfp4: Path, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(nvfp4_folder(golden_nvfp4, "qwen3_moe"), folder)
    set_side_file(folder, quant_algo="NVFP4", group_size=16, exclude_modules=["lm_head"])
    assert_packed(open_checkpoint(folder, tokenizer_required=False), "layers.0.attn.q", Format.NVFP4)


def test_a_mixed_export_of_modelopt(golden_nvfp4: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(nvfp4_folder(golden_nvfp4, "qwen3_moe"), folder)
    layers = {"model.layers.0.self_attn.q_proj": {"quant_algo": "NVFP4", "group_size": 16}}
    set_side_file(folder, quant_algo="MIXED_PRECISION", quantized_layers=layers)
    assert_packed(open_checkpoint(folder, tokenizer_required=False), "layers.1.experts.3.down", Format.NVFP4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", ["qwen3_moe", "deepseek_v3"])
def test_experts_in_a_format(make_folder: MakeFolder, model: str, form: str) -> None:
    folder = make_folder(model)
    decoded = pack(folder, form)
    checkpoint = open_checkpoint(folder)
    tensors = load_file(folder / WEIGHTS)
    for role, source in checkpoint.metadata.sources.items():
        if source.tensor in decoded:
            assert torch.equal(checkpoint.tensor(role), decoded[source.tensor]), role
            assert_packed(checkpoint, role, Format(FORMS[form][0].replace("-compressed-tensors", "")))
        else:
            assert checkpoint.packed(role) is None
            assert torch.equal(checkpoint.tensor(role), tensors[source.tensor]), role
    assert checkpoint.metadata.num_bytes == sum(t.numel() * t.element_size() for t in tensors.values())


@pytest.mark.parametrize("ending", [".weight", "q_proj.weight", "none"])
def test_lists_of_what_is_left_out_need_not_be_right(make_folder: MakeFolder, ending: str) -> None:
    folder = make_folder("qwen3_moe")
    decoded = pack(folder, "modelopt", lambda name: "_proj" in name and name.endswith(ending))
    set_config(folder, quantization_config={**MODELOPT, "ignore": ["model.layers.1.self_attn*", "*experts*"]})
    checkpoint = open_checkpoint(folder)
    packed = {s.tensor for role, s in checkpoint.metadata.sources.items() if checkpoint.packed(role)}
    assert packed == set(decoded)


def test_two_formats_in_one_checkpoint(make_folder: MakeFolder) -> None:
    """As in NVFP4 experts with FP8 attention: each group has a format of its own."""
    folder = make_folder("qwen3_moe")
    pack(folder, "compressed-tensors fp8", lambda name: name.endswith("o_proj.weight"))
    pack(folder, "compressed-tensors nvfp4")
    groups = {
        name: {**FORMS[form][1]["config_groups"]["group_0"], "format": FORMS[form][1]["format"]}
        for name, form in (("a", "compressed-tensors fp8"), ("b", "compressed-tensors nvfp4"))
    }
    config = {"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups}
    set_config(folder, quantization_config=config)
    checkpoint = open_checkpoint(folder)
    assert_packed(checkpoint, "layers.0.attn.o", Format.FP8)
    assert_packed(checkpoint, "layers.0.experts.1.up", Format.NVFP4)
    assert checkpoint.packed("layers.0.attn.q") is None


def test_the_config_of_a_part_that_reads_text(make_folder: MakeFolder) -> None:
    """Kimi K2.5 has images too, and keeps the text model's config inside."""
    folder = make_folder("qwen3_moe")
    pack(folder, "compressed-tensors int4")
    config = FORMS["compressed-tensors int4"][1]
    set_config(folder, quantization_config=None, text_config={"quantization_config": config})
    assert_packed(open_checkpoint(folder), "layers.1.experts.0.gate", Format.INT4)


def test_fused_experts_in_mxfp4(make_folder: MakeFolder) -> None:
    folder = make_folder("gpt_oss")
    decoded = pack_gpt_oss(folder)
    checkpoint = open_checkpoint(folder)
    for layer in range(checkpoint.spec.num_layers):
        fused = f"model.layers.{layer}.mlp.experts"
        for expert in (0, 5):
            role = f"layers.{layer}.experts.{expert}"
            gate_up = decoded[f"{fused}.gate_up_proj"][expert]
            assert torch.equal(checkpoint.tensor(f"{role}.gate"), gate_up[:, 0::2].T)
            assert torch.equal(checkpoint.tensor(f"{role}.up"), gate_up[:, 1::2].T)
            assert torch.equal(checkpoint.tensor(f"{role}.down"), decoded[f"{fused}.down_proj"][expert].T)
            for part in ("gate", "up", "down"):
                assert_packed(checkpoint, f"{role}.{part}", Format.MXFP4)
            assert checkpoint.packed(f"{role}.gate_bias") is None
    up = checkpoint.packed("layers.0.experts.1.up")
    gate = checkpoint.packed("layers.0.experts.1.gate")
    assert up.codes.data_ptr() - gate.codes.data_ptr() == gate.codes.shape[1]  # views of one tensor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e8m0fnu])
def test_scales_of_fp8_may_be_powers_of_two(make_folder: MakeFolder, dtype: torch.dtype) -> None:
    folder = make_folder("qwen3_moe")
    pack(folder, "deepseek fp8")
    config = {**FORMS["deepseek fp8"][1], "scale_fmt": "ue8m0"}
    set_config(folder, quantization_config=config)
    tensors = load_file(folder / WEIGHTS)
    for name in tensors:
        if name.endswith("weight_scale_inv"):
            tensors[name] = torch.exp2(torch.log2(tensors[name]).ceil()).to(dtype)
    rewrite_weights(folder, tensors)
    checkpoint = open_checkpoint(folder)
    name = "model.layers.0.mlp.experts.2.up_proj.weight"
    expected = tensors[name].float() * tensors[f"{name}_scale_inv"].float()
    assert torch.equal(checkpoint.tensor("layers.0.experts.2.up"), expected)
    assert_packed(checkpoint, "layers.0.experts.2.up", Format.FP8)


def resident_bytes(path: Path) -> int:
    """How much of a mapped file this process holds, by /proc/self/smaps."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="no such call here")
def test_pages_are_given_back(make_folder: MakeFolder) -> None:
    folder = make_folder()
    checkpoint = open_checkpoint(folder)
    before = {role: checkpoint.tensor(role).clone() for role in checkpoint.metadata.sources}
    assert resident_bytes(folder / WEIGHTS) > 100_000
    checkpoint.forget_pages()
    assert resident_bytes(folder / WEIGHTS) == 0
    for role, tensor in before.items():
        assert torch.equal(checkpoint.tensor(role), tensor), role
