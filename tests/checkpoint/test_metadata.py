"""What opening a folder finds."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from folders import WEIGHTS, MakeFolder

from rackscale.checkpoint import open_metadata
from rackscale.specs import GqaSpec, MlaSpec, QkNorm, Scoring, YarnScaling

MODELS = ("deepseek_v3", "gpt_oss", "kimi_k2", "mixtral", "olmoe", "qwen3_moe")


@pytest.mark.parametrize("model", MODELS)
def test_both_spellings_of_a_config_are_one_spec(
    make_folder: MakeFolder, golden_logits: Path, model: str
) -> None:
    folder = make_folder(model)
    new = open_metadata(folder)
    shutil.copy(golden_logits / model / "config_published.json", folder / "config.json")
    old = open_metadata(folder)
    assert new.spec == old.spec
    assert new.sources == old.sources


def test_deepseek_spec(make_folder: MakeFolder) -> None:
    spec = open_metadata(make_folder("deepseek_v3")).spec
    assert (spec.hidden, spec.vocab_size, spec.dense_width, spec.dtype) == (64, 256, 160, "bfloat16")
    assert [layer.moe for layer in spec.layers] == [False, True, True]
    assert spec.attention == MlaSpec(
        num_heads=4, q_lora_rank=48, kv_lora_rank=32, nope_head_dim=32, rope_head_dim=16, v_head_dim=32
    )
    assert spec.kv_elements_per_token == 3 * (32 + 16)
    assert spec.moe is not None
    router = spec.moe.router
    assert (router.num_experts, router.top_k, router.num_groups, router.topk_groups) == (16, 4, 4, 2)
    assert (router.scoring, router.correction_bias, router.scale) == (Scoring.SIGMOID, True, 2.5)
    assert (spec.moe.width, spec.moe.shared_width) == (32, 32)
    assert isinstance(spec.rope.scaling, YarnScaling)
    assert spec.rope.interleaved
    # mscale over mscale_all_dim, both 1, is 1; the softmax gets 0.1 * ln(32) + 1.
    assert spec.rope.scaling.attention_factor == 1.0
    assert spec.rope.scaling.softmax_mscale == pytest.approx(1.34657, abs=1e-5)


def test_gpt_oss_spec(make_folder: MakeFolder) -> None:
    spec = open_metadata(make_folder("gpt_oss")).spec
    assert [layer.window for layer in spec.layers] == [12, None, 12, None]
    assert isinstance(spec.attention, GqaSpec)
    assert spec.attention.sinks
    assert isinstance(spec.rope.scaling, YarnScaling)
    assert not spec.rope.scaling.truncate
    assert spec.moe is not None
    assert (spec.moe.router.scoring, spec.moe.router.bias) == (Scoring.TOPK_SOFTMAX, True)


def test_query_key_norms_differ_by_family(make_folder: MakeFolder) -> None:
    qwen, olmoe = open_metadata(make_folder("qwen3_moe")), open_metadata(make_folder("olmoe"))
    assert isinstance(qwen.spec.attention, GqaSpec)
    assert isinstance(olmoe.spec.attention, GqaSpec)
    assert (qwen.spec.attention.qk_norm, qwen.spec.attention.head_dim) == (QkNorm.HEAD, 32)
    assert olmoe.spec.attention.qk_norm == QkNorm.PROJECTION
    assert qwen.sources["layers.0.attn.q_norm"].shape == (32,)
    assert olmoe.sources["layers.0.attn.q_norm"].shape == (olmoe.spec.hidden,)


def test_bytes_are_those_of_the_file(make_folder: MakeFolder) -> None:
    folder = make_folder("gpt_oss")
    length = struct.unpack("<Q", (folder / WEIGHTS).read_bytes()[:8])[0]
    assert open_metadata(folder).num_bytes == (folder / WEIGHTS).stat().st_size - 8 - length


def test_metadata_needs_no_torch(make_folder: MakeFolder) -> None:
    code = (
        "import sys, pathlib, rackscale.checkpoint as c;"
        f"print(c.open_metadata(pathlib.Path({str(make_folder())!r})).spec.family, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["deepseek_v3", "False"]


def test_a_folder_without_tokenizer_opens_where_none_is_needed(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "tokenizer.json").unlink()
    assert open_metadata(folder, tokenizer_required=False).tokenizer is None
