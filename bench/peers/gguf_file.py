"""A checkpoint of OLMoE's shape as a GGUF file in bf16, a tensor at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint, open_checkpoint
from rackscale.specs import GqaSpec

BF16 = gguf.GGMLQuantizationType.BF16
FILE_TYPE_BF16 = 32
MATRICES = {"attn_q": "attn.q", "attn_k": "attn.k", "attn_v": "attn.v", "attn_output": "attn.o"}
VECTORS = {
    "attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "attn_q_norm": "attn.q_norm",
    "attn_k_norm": "attn.k_norm", "ffn_gate_inp": "router",
}  # fmt: skip
EXPERTS = {"ffn_gate_exps": "gate", "ffn_up_exps": "up", "ffn_down_exps": "down"}
Read = Callable[[], np.ndarray]


def write_gguf(checkpoint_path: Path, path: Path) -> None:
    """Holds the experts' matrices of one kind of one layer in memory at most."""
    checkpoint = open_checkpoint(checkpoint_path, tokenizer_required=False)
    writer = gguf.GGUFWriter(str(path), "olmoe")
    _add_sizes(writer, checkpoint)
    tensors = list(_tensors(checkpoint))
    for name, shape, raw, _ in tensors:
        count = int(np.prod(shape))
        dtype = np.dtype(np.float32 if raw is None else np.uint8)
        writer.add_tensor_info(name, shape, dtype, count * dtype.itemsize, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for *_, read in tensors:
        writer.write_tensor_data(read())
    writer.close()


def _add_sizes(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    spec = checkpoint.spec
    attention, moe = spec.attention, spec.moe
    assert isinstance(attention, GqaSpec) and moe is not None, "OLMoE has both"  # noqa: PT018 (one fact)
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.num_layers)
    writer.add_feed_forward_length(moe.width)
    writer.add_head_count(attention.num_heads)
    writer.add_head_count_kv(attention.num_kv_heads)
    writer.add_rope_freq_base(spec.rope.theta)
    writer.add_rope_dimension_count(spec.rope.dim)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    writer.add_expert_count(moe.router.num_experts)
    writer.add_expert_used_count(moe.router.top_k)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_tokenizer_model("none")
    writer.add_file_type(FILE_TYPE_BF16)


def _tensors(
    checkpoint: Checkpoint,
) -> Iterator[tuple[str, tuple[int, ...], gguf.GGMLQuantizationType | None, Read]]:
    """Name, shape (in bytes where it is raw), type and what reads it."""

    def matrix(*roles: str) -> tuple[tuple[int, ...], gguf.GGMLQuantizationType, Read]:
        rows, depth = checkpoint.tensor(roles[0]).shape
        shape = (rows, 2 * depth)
        return (
            shape if len(roles) == 1 else (len(roles), *shape),
            BF16,
            lambda: _bytes(torch.stack([checkpoint.tensor(role) for role in roles])),
        )

    def plain(role: str) -> tuple[tuple[int, ...], None, Read]:
        return (
            tuple(checkpoint.tensor(role).shape),
            None,
            lambda: checkpoint.tensor(role).float().numpy(),
        )

    yield "token_embd.weight", *matrix("embed")
    yield "output_norm.weight", *plain("final_norm")
    yield "output.weight", *matrix("head")
    moe = checkpoint.spec.moe
    assert moe is not None, "OLMoE has experts"
    for layer in range(checkpoint.spec.num_layers):
        for name, role in VECTORS.items():
            yield f"blk.{layer}.{name}.weight", *plain(f"layers.{layer}.{role}")
        for name, role in MATRICES.items():
            yield f"blk.{layer}.{name}.weight", *matrix(f"layers.{layer}.{role}")
        for name, part in EXPERTS.items():
            roles = [f"layers.{layer}.experts.{e}.{part}" for e in range(moe.router.num_experts)]
            yield f"blk.{layer}.{name}.weight", *matrix(*roles)


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.uint8).numpy()
