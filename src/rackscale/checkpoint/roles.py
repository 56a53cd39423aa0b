"""Roles: what a tensor is for, whatever its family calls it. Matrices are [out, in].

embed  final_norm  head
layers.N.attn_norm  layers.N.ffn_norm
layers.N.attn.{q,k,v,o}, their _bias, q_norm, k_norm, sinks              grouped-query attention
layers.N.attn.{q | q_a,q_a_norm,q_b}, kv_a, kv_a_norm, kv_b, o, _bias    latent attention
layers.N.ffn.{gate,up,down}, _bias                                       a layer without experts
layers.N.router, router_bias, router_correction
layers.N.shared.{gate,up,down}   layers.N.experts.E.{gate,up,down}, _bias
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rackscale.specs import GqaSpec, LayerSpec, MlaSpec, ModelSpec, MoeSpec, QkNorm

Shape = tuple[int, ...]


class Source(NamedTuple):
    """The tensor that a role is read from, and the part of it.

    shape: of the whole tensor. expert: its index along the first axis. columns: which part of the last
    axis of what is then left, "even" or "odd". transposed: [in, out] in the file.
    """

    tensor: str
    shape: Shape
    expert: int | None = None
    columns: Literal["all", "even", "odd"] = "all"
    transposed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What a family calls the parts of a layer; `{e}` is an expert's number."""

    attn: dict[str, str]
    ffn: str = "mlp"
    router: str = "mlp.gate.weight"
    router_bias: str = "mlp.gate.bias"
    router_correction: str = "mlp.gate.e_score_correction_bias"
    shared: str = "mlp.shared_experts"
    expert: str = "mlp.experts.{e}"
    expert_parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    fused_experts: str | None = None  # gpt-oss: one tensor for all, gate and up interleaved


MLA_NAMES = {
    "q": "q_proj", "q_a": "q_a_proj", "q_a_norm": "q_a_layernorm", "q_b": "q_b_proj",
    "kv_a": "kv_a_proj_with_mqa", "kv_a_norm": "kv_a_layernorm", "kv_b": "kv_b_proj", "o": "o_proj",
}  # fmt: skip
GQA_NAMES = {
    "q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj",
    "q_norm": "q_norm", "k_norm": "k_norm",
}  # fmt: skip


def sources(spec: ModelSpec, names: Names) -> Iterator[tuple[str, Source]]:
    """Every role of the model and where it is read from.

    One by one: a damaged spec may ask for more experts than memory has room to list, and whoever checks
    sources as they come stops at the first one that no file has.
    """
    yield "embed", _plain("model.embed_tokens.weight", spec.vocab_size, spec.hidden)
    yield "final_norm", _plain("model.norm.weight", spec.hidden)
    head = "model.embed_tokens.weight" if spec.tied_embeddings else "lm_head.weight"
    yield "head", _plain(head, spec.vocab_size, spec.hidden)
    for number, layer in enumerate(spec.layers):
        for role, source in _layer(spec, layer, names):
            yield f"layers.{number}.{role}", source._replace(tensor=f"model.layers.{number}.{source.tensor}")


def _plain(tensor: str, *shape: int) -> Source:
    return Source(tensor=tensor, shape=shape)


def _layer(spec: ModelSpec, layer: LayerSpec, names: Names) -> Iterator[tuple[str, Source]]:
    yield "attn_norm", _plain("input_layernorm.weight", spec.hidden)
    yield "ffn_norm", _plain("post_attention_layernorm.weight", spec.hidden)
    match spec.attention:
        case MlaSpec() as mla:
            yield from _mla(mla, spec.hidden, names)
        case GqaSpec() as gqa:
            yield from _gqa(gqa, spec.hidden, names)
    if layer.moe:
        assert spec.moe is not None, "a layer with experts has a MoeSpec"
        yield from _moe(spec.moe, spec.hidden, names)
    else:
        yield from _mlp("ffn", names.ffn, spec.hidden, spec.dense_width, bias=spec.mlp_bias)


def _attn(names: Names, role: str, shape: Shape, *, bias: bool = False) -> Iterator[tuple[str, Source]]:
    tensor = f"self_attn.{names.attn[role]}"
    yield f"attn.{role}", _plain(f"{tensor}.weight", *shape)
    if bias:
        yield f"attn.{role}_bias", _plain(f"{tensor}.bias", shape[0])


def _mla(mla: MlaSpec, hidden: int, names: Names) -> Iterator[tuple[str, Source]]:
    query = mla.num_heads * (mla.nope_head_dim + mla.rope_head_dim)
    if mla.q_lora_rank is None:
        yield from _attn(names, "q", (query, hidden))
    else:
        yield from _attn(names, "q_a", (mla.q_lora_rank, hidden), bias=mla.bias)
        yield from _attn(names, "q_a_norm", (mla.q_lora_rank,))
        yield from _attn(names, "q_b", (query, mla.q_lora_rank))
    yield from _attn(names, "kv_a", (mla.kv_lora_rank + mla.rope_head_dim, hidden), bias=mla.bias)
    yield from _attn(names, "kv_a_norm", (mla.kv_lora_rank,))
    kv = mla.num_heads * (mla.nope_head_dim + mla.v_head_dim)
    yield from _attn(names, "kv_b", (kv, mla.kv_lora_rank))
    yield from _attn(names, "o", (hidden, mla.num_heads * mla.v_head_dim), bias=mla.bias)


def _gqa(gqa: GqaSpec, hidden: int, names: Names) -> Iterator[tuple[str, Source]]:
    query, key = gqa.num_heads * gqa.head_dim, gqa.num_kv_heads * gqa.head_dim
    yield from _attn(names, "q", (query, hidden), bias=gqa.qkv_bias)
    yield from _attn(names, "k", (key, hidden), bias=gqa.qkv_bias)
    yield from _attn(names, "v", (key, hidden), bias=gqa.qkv_bias)
    yield from _attn(names, "o", (hidden, query), bias=gqa.out_bias)
    if gqa.qk_norm != QkNorm.NONE:
        head = gqa.qk_norm == QkNorm.HEAD
        yield from _attn(names, "q_norm", (gqa.head_dim if head else query,))
        yield from _attn(names, "k_norm", (gqa.head_dim if head else key,))
    if gqa.sinks:
        yield "attn.sinks", _plain("self_attn.sinks", gqa.num_heads)


def _mlp(
    role: str,
    prefix: str,
    hidden: int,
    width: int,
    *,
    parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    bias: bool = False,
) -> Iterator[tuple[str, Source]]:
    shapes = ((width, hidden), (width, hidden), (hidden, width))
    for part, name, shape in zip(("gate", "up", "down"), parts, shapes, strict=True):
        yield f"{role}.{part}", _plain(f"{prefix}.{name}.weight", *shape)
        if bias:
            yield f"{role}.{part}_bias", _plain(f"{prefix}.{name}.bias", shape[0])


def _moe(moe: MoeSpec, hidden: int, names: Names) -> Iterator[tuple[str, Source]]:
    experts = moe.router.num_experts
    yield "router", _plain(names.router, experts, hidden)
    if moe.router.bias:
        yield "router_bias", _plain(names.router_bias, experts)
    if moe.router.correction_bias:
        yield "router_correction", _plain(names.router_correction, experts)
    if moe.shared_width:
        yield from _mlp("shared", names.shared, hidden, moe.shared_width)
    for expert in range(experts):
        role = f"experts.{expert}"
        if names.fused_experts is not None:
            yield from _fused_expert(role, names.fused_experts, expert, moe, hidden)
        else:
            prefix = names.expert.format(e=expert)
            yield from _mlp(role, prefix, hidden, moe.width, parts=names.expert_parts)


def _fused_expert(
    role: str, prefix: str, expert: int, moe: MoeSpec, hidden: int
) -> Iterator[tuple[str, Source]]:
    """gpt-oss: gate_up [E, hidden, 2 * width], gate in the even columns and up in the odd ones."""
    experts, width = moe.router.num_experts, moe.width
    gate_up = Source(
        tensor=f"{prefix}.gate_up_proj", shape=(experts, hidden, 2 * width), expert=expert, transposed=True
    )
    gate_up_bias = Source(tensor=f"{prefix}.gate_up_proj_bias", shape=(experts, 2 * width), expert=expert)
    halves: tuple[tuple[str, Literal["even", "odd"]], ...] = (("gate", "even"), ("up", "odd"))
    for part, columns in halves:
        yield f"{role}.{part}", gate_up._replace(columns=columns)
        yield f"{role}.{part}_bias", gate_up_bias._replace(columns=columns)
    down = f"{prefix}.down_proj"
    yield (
        f"{role}.down",
        Source(tensor=down, shape=(experts, width, hidden), expert=expert, transposed=True),
    )
    yield f"{role}.down_bias", Source(tensor=f"{down}_bias", shape=(experts, hidden), expert=expert)
