"""Weights of a model and a cache to decode on, at random."""

import numpy as np
import torch

from rackscale.runtime.batch import make_batch
from rackscale.runtime.kernels import (
    ExpertWeights,
    GqaWeights,
    LayerWeights,
    Linear,
    MlaWeights,
    MlpWeights,
    ModelWeights,
    MoeWeights,
)
from rackscale.runtime.kv_cache import KvCache, KvShape
from rackscale.specs import (
    Activation,
    GqaSpec,
    LayerSpec,
    MlaSpec,
    ModelSpec,
    MoeSpec,
    QkNorm,
    RopeSpec,
    RouterSpec,
    Scoring,
)

EPS = 1e-5
VOCAB = 37
CPU = torch.device("cpu")


class Draw:
    """Tensors of a size that keeps activations near one."""

    def __init__(self, rng, dtype):
        self.rng, self.dtype = rng, dtype

    def linear(self, depth, columns, *, bias=False):
        weight = torch.randn(depth, columns) / depth**0.5
        return Linear(weight.to(self.dtype), torch.randn(columns) * 0.3 if bias else None)

    def heads(self, heads, depth, columns):
        return (torch.randn(heads, depth, columns) / depth**0.5).to(self.dtype)

    def norm(self, width):
        return 1 + 0.3 * torch.randn(width)


def mla(draw, hidden):
    rng = draw.rng
    lora = rng.choice([None, 5, 16])
    spec = MlaSpec(
        num_heads=rng.choice([1, 2, 3, 4, 8]),
        q_lora_rank=lora,
        kv_lora_rank=rng.choice([5, 16, 40]),
        nope_head_dim=rng.choice([3, 16]),
        rope_head_dim=rng.choice([2, 6, 16]),
        v_head_dim=rng.choice([3, 16, 20]),
    )
    queries = spec.num_heads * (spec.nope_head_dim + spec.rope_head_dim)
    latent = spec.kv_lora_rank + spec.rope_head_dim
    return spec, MlaWeights(
        spec=spec,
        scale=0.3,
        eps=EPS,
        first=draw.linear(hidden, (lora or queries) + latent, bias=rng.random() < 0.5),
        query_norm=draw.norm(lora) if lora else None,
        query_up=draw.linear(lora, queries) if lora else None,
        latent_norm=draw.norm(spec.kv_lora_rank),
        key_up_ANR=draw.heads(spec.num_heads, spec.nope_head_dim, spec.kv_lora_rank),
        value_up_ARV=draw.heads(spec.num_heads, spec.kv_lora_rank, spec.v_head_dim),
        out=draw.linear(spec.num_heads * spec.v_head_dim, hidden, bias=rng.random() < 0.5),
    )


def gqa(draw, hidden):
    rng = draw.rng
    key_heads = rng.choice([1, 2, 3])
    spec = GqaSpec(
        num_heads=key_heads * rng.choice([1, 2, 3, 4]),
        num_kv_heads=key_heads,
        head_dim=rng.choice([2, 10, 16, 36]),
        qk_norm=rng.choice(list(QkNorm)),
        clip_qkv=rng.choice([None, 0.7]),
    )
    heads, dim = spec.num_heads, spec.head_dim
    query, key = {
        QkNorm.NONE: (None, None),
        QkNorm.HEAD: (dim, dim),
        QkNorm.PROJECTION: (heads * dim, key_heads * dim),
    }[spec.qk_norm]
    return spec, GqaWeights(
        spec=spec,
        scale=0.4,
        eps=EPS,
        window=rng.choice([None, 1, 7, 40]),
        first=draw.linear(hidden, (heads + 2 * key_heads) * dim, bias=rng.random() < 0.5),
        query_norm=draw.norm(query) if query else None,
        key_norm=draw.norm(key) if key else None,
        sinks_A=rng.choice([None, torch.randn(heads)]),
        out=draw.linear(heads * dim, hidden, bias=rng.random() < 0.5),
    )


def mlp(draw, hidden):
    width = draw.rng.choice([3, 16, 33])
    bias = draw.rng.random() < 0.5
    return MlpWeights(
        gate_up=draw.linear(hidden, 2 * width, bias=bias), down=draw.linear(width, hidden, bias=bias)
    )


def moe(draw, hidden):
    rng = draw.rng
    groups = rng.choice([1, 2])
    clamped = rng.random() < 0.5
    sigmoid = groups > 1 or rng.random() < 0.5
    router = RouterSpec(
        num_experts=8,
        top_k=3,
        scoring=Scoring.SIGMOID if sigmoid else rng.choice([Scoring.SOFTMAX, Scoring.TOPK_SOFTMAX]),
        num_groups=groups,
        renormalise=rng.random() < 0.5,
        scale=1.5,
    )
    spec = MoeSpec(
        router=router,
        width=rng.choice([3, 16, 20]),
        shared_width=rng.choice([0, 1]),
        activation=Activation.SWIGLU_CLAMPED if clamped else Activation.SWIGLU,
        expert_bias=clamped,
    )
    return MoeWeights(
        spec=spec,
        router=Linear(torch.randn(hidden, 8), torch.randn(8) if clamped else None),
        correction_E=torch.randn(8) * 0.1 if sigmoid else None,
        experts=ExpertWeights(
            gate_up=draw.heads(8, hidden, 2 * spec.width),
            down=draw.heads(8, spec.width, hidden),
            gate_up_bias=torch.randn(8, 2 * spec.width) if clamped else None,
            down_bias=torch.randn(8, hidden) if clamped else None,
            moe=spec,
        ),
        shared=mlp(draw, hidden) if spec.shared_width else None,
    )


def model_of(attention, num_layers, rope_dim):
    """As much of a spec as a cache and a table of rotations need."""
    return ModelSpec(
        family="random",
        vocab_size=2,
        hidden=2,
        attention=attention,
        rope=RopeSpec(theta=1000.0, dim=rope_dim),
        layers=(LayerSpec(moe=False),) * num_layers,
        dense_width=1,
        moe=None,
        norm_eps=EPS,
        max_positions=256,
        tied_embeddings=False,
    )


def random_model(rng, hidden, num_layers, dtype):
    """Weights with one kind of attention, as models have them, and a spec for them."""
    draw = Draw(rng, dtype)
    kind = rng.choice([mla, gqa])
    layers, spec = [], None
    for _ in range(num_layers):
        state = rng.getstate()
        spec, attention = kind(draw, hidden)
        layers.append(
            LayerWeights(
                attention_norm=draw.norm(hidden),
                attention=attention,
                ffn_norm=draw.norm(hidden),
                ffn=rng.choice([mlp, moe])(draw, hidden),
            )
        )
        rng.setstate(state)  # the next layer has the same sizes
    rope_dim = spec.rope_head_dim if isinstance(spec, MlaSpec) else spec.head_dim
    weights = ModelWeights(
        eps=EPS,
        embed=torch.randn(VOCAB, hidden).to(dtype),
        layers=tuple(layers),
        final_norm=draw.norm(hidden),
        head=draw.linear(hidden, VOCAB),
    )
    return weights, model_of(spec, num_layers, rope_dim)


def filled_cache(model, lengths, block_size, seed):
    """A cache with rows of these lengths already in it, in blocks that lie anywhere."""
    generator = torch.Generator().manual_seed(seed)
    per_row = 256 // block_size
    num_blocks = per_row * len(lengths)
    shape = KvShape(model=model, num_blocks=num_blocks, block_size=block_size, dtype=torch.float32)
    cache = KvCache(shape.layers(), block_size=block_size, max_running=len(lengths), max_model_len=256)
    cache.table[:] = torch.randperm(num_blocks, generator=generator).view(len(lengths), per_row).numpy()
    for layer in cache.layers:
        for part in layer:
            part.copy_(torch.randn(part.shape, generator=generator))
    return cache


def decodes(cache, lengths, sampled):
    """A batch of one token for each row, at the end of what it has."""
    rows = np.arange(len(lengths), dtype=np.int32)[::-1].copy()
    first = np.array(lengths, dtype=np.int32)
    tokens = (np.arange(len(lengths), dtype=np.int32) * 5 + 3) % VOCAB
    return make_batch(cache, tokens, rows, first, np.ones_like(first), np.array(sampled, dtype=np.int32), CPU)
