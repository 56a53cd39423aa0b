"""Multi-head latent attention (arXiv 2405.04434) over a paged cache of latents.

Decodes work on the compressed cache: the key's up-projection is absorbed into the query, the value's is
applied after the attention. Chunks of a prefill expand keys and values, which costs less for many queries.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rackscale.runtime.batch import Batch, Chunk
from rackscale.runtime.kernels import Kernels
from rackscale.runtime.model.chunk_attention import attend
from rackscale.runtime.model.weights import LayerWeights, Linear
from rackscale.runtime.rope import Rope, halves
from rackscale.specs import MlaSpec, ModelSpec, YarnScaling


class Mla:
    """One layer's attention."""

    def __init__(self, model: ModelSpec, spec: MlaSpec, weights: LayerWeights, kernels: Kernels) -> None:
        self.spec, self.kernels, self.eps = spec, kernels, model.norm_eps
        scaling = model.rope.scaling
        mscale = scaling.softmax_mscale if isinstance(scaling, YarnScaling) else 1.0
        self.scale = (spec.nope_head_dim + spec.rope_head_dim) ** -0.5 * mscale**2
        query = "q" if spec.q_lora_rank is None else "q_b"
        q_rows = weights.get(f"attn.{query}")
        kv_rows = weights.get("attn.kv_a")
        kv_bias = weights.maybe("attn.kv_a_bias")
        if model.rope.interleaved:
            q_rows, kv_rows = self._halved_query(q_rows), self._halved_key(kv_rows)
            kv_bias = None if kv_bias is None else self._halved_key(kv_bias[:, None])[:, 0]
        self.q_b = None if spec.q_lora_rank is None else Linear(q_rows, None)
        self.q_norm = weights.maybe("attn.q_a_norm")
        first = q_rows if spec.q_lora_rank is None else weights.get("attn.q_a")
        self.first_width = len(first)
        qkv_bias = None
        if kv_bias is not None:
            q_bias = weights.maybe("attn.q_a_bias")
            q_bias = torch.zeros_like(first[:, 0]) if q_bias is None else q_bias
            qkv_bias = torch.cat((q_bias, kv_bias))
        self.qkv = Linear(torch.cat((first, kv_rows)), qkv_bias)
        self.kv_norm = weights.get("attn.kv_a_norm")
        self.kv_b = weights.get("attn.kv_b")
        up = self.kv_b.view(spec.num_heads, spec.nope_head_dim + spec.v_head_dim, spec.kv_lora_rank)
        self.key_up_ANR = up[:, : spec.nope_head_dim].contiguous()
        self.value_up_ARV = up[:, spec.nope_head_dim :].mT.contiguous()
        self.out = weights.linear("attn.o")

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, rope: Rope) -> Tensor:
        """Attention of every token to its row up to itself, [T, H]; writes the tokens' latents."""
        spec, kernels = self.spec, self.kernels
        qkv = kernels.linear(x_TH, self.qkv.weight, self.qkv.bias)
        first, kv = qkv.split((self.first_width, spec.kv_lora_rank + spec.rope_head_dim), -1)
        if self.q_b is not None:
            assert self.q_norm is not None, "a query LoRA has a norm"
            normed = kernels.rms_norm(first, self.q_norm, self.eps)
            first = kernels.linear(normed, self.q_b.weight, None)
        query_TAN = first.unflatten(1, (spec.num_heads, -1))
        nope_TAN, rope_TAN = query_TAN.split((spec.nope_head_dim, spec.rope_head_dim), -1)
        kernels.rotate(rope_TAN, rope, batch.positions)
        latent, key_rope = kv.split((spec.kv_lora_rank, spec.rope_head_dim), -1)
        kernels.rotate(key_rope.unsqueeze(1), rope, batch.positions)
        latent = kernels.rms_norm(latent, self.kv_norm, self.eps)
        (latents_SW,) = cache
        latents_SW[batch.slots] = torch.cat((latent, key_rope), -1)

        parts = []
        decodes = len(batch.decodes)
        if decodes:
            parts.append(self._decode(nope_TAN[:decodes], rope_TAN[:decodes], latents_SW, batch))
        for chunk in batch.chunks:
            part = slice(chunk.start, chunk.end)
            parts.append(self._chunk(nope_TAN[part], rope_TAN[part], latents_SW, chunk))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return kernels.linear(attended, self.out.weight, self.out.bias)

    def _decode(self, nope_DAN: Tensor, rope_DAN: Tensor, latents_SW: Tensor, batch: Batch) -> Tensor:
        absorbed_DAR = torch.bmm(nope_DAN.transpose(0, 1), self.key_up_ANR).transpose(0, 1)
        query_DAW = torch.cat((absorbed_DAR, rope_DAN), -1)
        latent_DAR = self.kernels.mla_decode(
            query_DAW, latents_SW, batch.decodes, self.spec.kv_lora_rank, self.scale
        )
        value_ADV = torch.bmm(latent_DAR.transpose(0, 1), self.value_up_ARV)
        return value_ADV.transpose(0, 1).flatten(1)

    def _chunk(self, nope_TAN: Tensor, rope_TAN: Tensor, latents_SW: Tensor, chunk: Chunk) -> Tensor:
        spec = self.spec
        context_LW = latents_SW[chunk.context]
        latent_LR, rope_LN = context_LW.split((spec.kv_lora_rank, spec.rope_head_dim), -1)
        kv_LAN = F.linear(latent_LR, self.kv_b).view(len(context_LW), spec.num_heads, -1)
        key_LAN, value_LAV = kv_LAN.split((spec.nope_head_dim, spec.v_head_dim), -1)
        heads = (-1, spec.num_heads, -1)
        key_LAN = torch.cat((key_LAN, rope_LN.unsqueeze(1).expand(heads)), -1)
        query_TAN = torch.cat((nope_TAN, rope_TAN), -1)
        return attend(query_TAN, key_LAN, value_LAV, chunk, scale=self.scale).flatten(1)

    def _halved_query(self, rows: Tensor) -> Tensor:
        spec = self.spec
        heads = rows.view(spec.num_heads, -1, rows.shape[-1])
        nope, rope = heads.split((spec.nope_head_dim, spec.rope_head_dim), 1)
        return torch.cat((nope, halves(rope)), 1).flatten(0, 1)

    def _halved_key(self, rows: Tensor) -> Tensor:
        latent, rope = rows.split((self.spec.kv_lora_rank, self.spec.rope_head_dim), 0)
        return torch.cat((latent, halves(rope)), 0)
