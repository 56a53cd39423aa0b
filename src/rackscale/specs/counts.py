"""How many parameters a model has, part by part, and what a token takes in its cache."""

from dataclasses import dataclass
from typing import assert_never

from rackscale.specs.model import AttentionSpec, MlaSpec, ModelSpec, MoeSpec, QkNorm


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Parameters by part: biases, sinks and norms included, layers that guess further tokens (MTP) and the
    routers' correction biases not: transformers counts alike, and calls the latter buffers.

    embedding: the input's. head: 0 where it is the embedding again. expert: one of a layer.
    dense_ffn_per_layer: of a layer without experts; router_per_layer, shared_per_layer: of one with.
    norms_per_layer: of the residual; norms within attention count as attention. final_norm: the last one.
    """

    embedding: int
    head: int
    attention_per_layer: int
    dense_ffn_per_layer: int
    router_per_layer: int
    expert: int
    shared_per_layer: int
    norms_per_layer: int
    final_norm: int
    num_layers: int
    num_moe_layers: int
    num_experts: int
    top_k: int

    @property
    def total(self) -> int:
        """All of them."""
        return self._with(self.num_experts)

    @property
    def active(self) -> int:
        """Without the routed experts that a token does not use; embedding and head included."""
        return self._with(self.top_k)

    @property
    def active_no_embed(self) -> int:
        """Active ones that are multiplied: without the input embedding, which is looked up."""
        return self.active - (self.embedding if self.head else 0)

    @property
    def routed(self) -> int:
        """Of all routed experts of all layers."""
        return self.num_moe_layers * self.num_experts * self.expert

    def _with(self, experts: int) -> int:
        moe_layer = self.router_per_layer + self.shared_per_layer + experts * self.expert
        return (
            self.embedding
            + self.head
            + self.final_norm
            + self.num_layers * (self.attention_per_layer + self.norms_per_layer)
            + (self.num_layers - self.num_moe_layers) * self.dense_ffn_per_layer
            + self.num_moe_layers * moe_layer
        )


def count(spec: ModelSpec) -> Counts:
    """The parameters of a model."""
    hidden, moe = spec.hidden, spec.moe
    embedding = spec.vocab_size * hidden
    return Counts(
        embedding=embedding,
        head=0 if spec.tied_embeddings else embedding,
        attention_per_layer=_attention(spec.attention, hidden),
        dense_ffn_per_layer=_ffn(hidden, spec.dense_width, bias=spec.mlp_bias),
        router_per_layer=_router(moe, hidden) if moe else 0,
        expert=_ffn(hidden, moe.width, bias=moe.expert_bias) if moe else 0,
        shared_per_layer=_ffn(hidden, moe.shared_width, bias=False) if moe else 0,
        norms_per_layer=2 * hidden,
        final_norm=hidden,
        num_layers=spec.num_layers,
        num_moe_layers=sum(layer.moe for layer in spec.layers),
        num_experts=moe.router.num_experts if moe else 0,
        top_k=moe.router.top_k if moe else 0,
    )


def kv_bytes_per_token(spec: ModelSpec, bytes_per_element: float) -> float:
    """What a token takes in the cache, all layers together: a latent and a rotated key, or keys and values
    of all heads. Layers with a window keep as much until the token leaves it; scales are not counted."""
    return spec.kv_elements_per_token * bytes_per_element


def _ffn(hidden: int, width: int, *, bias: bool) -> int:
    """Gate, up and down."""
    return 3 * hidden * width + (2 * width + hidden if bias else 0)


def _router(moe: MoeSpec, hidden: int) -> int:
    return moe.router.num_experts * (hidden + moe.router.bias)


def _attention(attention: AttentionSpec, hidden: int) -> int:
    if isinstance(attention, MlaSpec):
        return _mla(attention, hidden)
    heads, kv_heads, dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
    width, kv_width = heads * dim, kv_heads * dim
    matrices = hidden * (2 * width + 2 * kv_width)
    biases = (width + 2 * kv_width) * attention.qkv_bias + hidden * attention.out_bias
    match attention.qk_norm:
        case QkNorm.NONE:
            norms = 0
        case QkNorm.HEAD:
            norms = 2 * dim
        case QkNorm.PROJECTION:
            norms = width + kv_width
        case _:
            assert_never(attention.qk_norm)
    return matrices + biases + norms + heads * attention.sinks


def _mla(mla: MlaSpec, hidden: int) -> int:
    """Query, compressed keys and values, their expansion, output; a norm on each latent."""
    latent, rope = mla.kv_lora_rank, mla.rope_head_dim
    queries = mla.num_heads * (mla.nope_head_dim + rope)
    values = mla.num_heads * mla.v_head_dim
    query = hidden * queries
    if mla.q_lora_rank is not None:
        query = mla.q_lora_rank * (hidden + 1 + queries + mla.bias)
    keys = hidden * (latent + rope) + latent * (1 + mla.num_heads * mla.nope_head_dim + values)
    return query + keys + values * hidden + (latent + rope + hidden) * mla.bias
