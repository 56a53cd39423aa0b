"""Tensors by role: views of the mapped file, equal to what safetensors' own reader gives."""

from pathlib import Path

import pytest
import torch
from folders import INDEX, WEIGHTS, MakeFolder, rewrite, set_config, set_index
from safetensors.torch import load_file, save_file

from rackscale.checkpoint import open_checkpoint
from rackscale.core import SpecError

MODELS = ("deepseek_v3", "gpt_oss", "kimi_k2", "mixtral", "olmoe", "qwen3_moe")


def split(folder: Path) -> None:
    """The one file in two, by turns, and an index."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, shard in enumerate(shards):
        save_file({name: tensors[name] for name in names[number::2]}, folder / shard)
    (folder / WEIGHTS).unlink()
    set_index(folder, {name: shards[position % 2] for position, name in enumerate(names)})


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_is_used_and_right(make_folder: MakeFolder, model: str) -> None:
    folder = make_folder(model)
    tensors, checkpoint = load_file(folder / WEIGHTS), open_checkpoint(folder)
    sources = checkpoint.metadata.sources
    assert {source.tensor for source in sources.values()} == set(tensors)
    for role, source in sources.items():
        assert checkpoint.has(role)
        if source.expert is None:
            assert torch.equal(checkpoint.tensor(role), tensors[source.tensor]), role


def test_names_of_mixtral(make_folder: MakeFolder) -> None:
    folder = make_folder("mixtral")
    tensors, checkpoint = load_file(folder / WEIGHTS), open_checkpoint(folder)
    experts = "model.layers.1.block_sparse_moe.experts.5"
    for role, name in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        assert torch.equal(
            checkpoint.tensor(f"layers.1.experts.5.{role}"), tensors[f"{experts}.{name}.weight"]
        )


def test_fused_experts_are_slices(make_folder: MakeFolder) -> None:
    folder = make_folder("gpt_oss")
    tensors, checkpoint = load_file(folder / WEIGHTS), open_checkpoint(folder)
    fused = "model.layers.2.mlp.experts"
    gate_up = tensors[f"{fused}.gate_up_proj"]  # [expert, in, out], gate and up by turns
    for expert in (0, 5):
        ours = {
            part: checkpoint.tensor(f"layers.2.experts.{expert}.{part}")
            for part in ("gate", "up", "down", "gate_bias", "up_bias", "down_bias")
        }
        assert ours["gate"].shape == (96, 64)
        assert torch.equal(ours["gate"], gate_up[expert, :, 0::2].T)
        assert torch.equal(ours["up"], gate_up[expert, :, 1::2].T)
        assert torch.equal(ours["down"], tensors[f"{fused}.down_proj"][expert].T)
        assert torch.equal(ours["gate_bias"], tensors[f"{fused}.gate_up_proj_bias"][expert, 0::2])
        assert torch.equal(ours["up_bias"], tensors[f"{fused}.gate_up_proj_bias"][expert, 1::2])
        assert torch.equal(ours["down_bias"], tensors[f"{fused}.down_proj_bias"][expert])


@pytest.mark.parametrize("model", ["deepseek_v3", "gpt_oss"])
def test_tensors_are_views_of_one_map(make_folder: MakeFolder, model: str) -> None:
    checkpoint = open_checkpoint(make_folder(model))
    metadata = checkpoint.metadata
    bases = set()
    for role, source in metadata.sources.items():
        tensor = checkpoint.tensor(role)
        inner = tensor.storage_offset() * tensor.element_size()
        assert inner + tensor.untyped_storage().data_ptr() == tensor.data_ptr()
        bases.add(tensor.untyped_storage().data_ptr() - metadata.tensors[source.tensor].start)
    assert len(bases) == 1  # every tensor lies at its file offset behind one address


def test_the_file_is_never_written(make_folder: MakeFolder) -> None:
    folder = make_folder()
    before = (folder / WEIGHTS).read_bytes()
    checkpoint = open_checkpoint(folder)
    checkpoint.tensor("final_norm").zero_()
    assert not checkpoint.tensor("final_norm").any()  # the map is private, and shared by its views
    assert (folder / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("misaligned", [1, 2, 3, 4])
def test_data_that_is_not_aligned(make_folder: MakeFolder, misaligned: int) -> None:
    """The format asks for alignment and some writers forget it; such tensors are copied."""
    folder = make_folder("olmoe")
    expected = load_file(folder / WEIGHTS)
    rewrite(folder, lambda _: None, misaligned=misaligned)
    checkpoint = open_checkpoint(folder)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert checkpoint.metadata.tensors[name].start % 8 == misaligned
    assert torch.equal(checkpoint.tensor("layers.0.attn.q"), expected[name])


@pytest.mark.parametrize("model", ["deepseek_v3", "gpt_oss"])
def test_shards_are_as_good_as_one_file(make_folder: MakeFolder, model: str) -> None:
    folder = make_folder(model)
    tensors = load_file(folder / WEIGHTS)
    whole = open_checkpoint(folder).metadata.num_bytes
    split(folder)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.metadata.num_bytes == whole
    for role, source in checkpoint.metadata.sources.items():
        if source.expert is None:
            assert torch.equal(checkpoint.tensor(role), tensors[source.tensor]), role


def test_a_shard_that_is_gone(make_folder: MakeFolder) -> None:
    folder = make_folder()
    split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SpecError, match=r"lacks 1 of 2 shards: model-00002-of-00002\.safetensors"):
        open_checkpoint(folder)


def test_the_index_says_which_file_is_meant(make_folder: MakeFolder) -> None:
    """A tensor of the same name in another file is not taken for it."""
    folder = make_folder()
    split(folder)
    stale = {"model.norm.weight": torch.zeros(64, dtype=torch.bfloat16)}
    save_file(stale, folder / "stale.safetensors")
    assert open_checkpoint(folder).tensor("final_norm").any()
    assert (folder / INDEX).exists()


def test_a_tied_head_is_the_embedding(make_folder: MakeFolder) -> None:
    folder = make_folder("qwen3_moe")
    rewrite(folder, lambda header: header.pop("lm_head.weight"))
    with pytest.raises(SpecError, match=r"lm_head\.weight"):
        open_checkpoint(folder)
    set_config(folder, tie_word_embeddings=True)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensor("head").data_ptr() == checkpoint.tensor("embed").data_ptr()


def test_a_path_may_be_text(make_folder: MakeFolder) -> None:
    folder = make_folder()
    assert open_checkpoint(str(folder)).path == folder
    with pytest.raises(SpecError, match="nowhere is not a folder"):
        open_checkpoint("nowhere")
