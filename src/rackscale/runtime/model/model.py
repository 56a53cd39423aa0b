"""A decoder-only language model of one rank."""

from collections.abc import Callable

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.runtime.batch import Batch
from rackscale.runtime.kernels import Kernels
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.model.feed_forward import Mlp, Moe
from rackscale.runtime.model.gqa import Gqa
from rackscale.runtime.model.mla import Mla
from rackscale.runtime.model.weights import LayerWeights
from rackscale.runtime.rope import Rope
from rackscale.specs import GqaSpec, LayerSpec, MlaSpec, ModelSpec

Progress = Callable[[int, int], None]


class Layer:
    """Attention and a feed-forward part, each behind a norm and added to the residual."""

    def __init__(self, model: ModelSpec, spec: LayerSpec, weights: LayerWeights, kernels: Kernels) -> None:
        self.kernels, self.eps = kernels, model.norm_eps
        self.attn_norm, self.ffn_norm = weights.get("attn_norm"), weights.get("ffn_norm")
        match model.attention:
            case MlaSpec() as mla:
                self.attention: Mla | Gqa = Mla(model, mla, weights, kernels)
            case GqaSpec() as gqa:
                self.attention = Gqa(model, gqa, spec.window, weights, kernels)
        self.ffn: Moe | Mlp
        if spec.moe:
            assert model.moe is not None, "a layer with experts has a MoeSpec"
            self.ffn = Moe(model.moe, weights, kernels)
        else:
            self.ffn = Mlp("ffn", weights, kernels)

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, rope: Rope) -> Tensor:
        """[T, H] to [T, H]."""
        normed = self.kernels.rms_norm(x_TH, self.attn_norm, self.eps)
        x_TH = x_TH + self.attention(normed, cache, batch, rope)
        normed = self.kernels.rms_norm(x_TH, self.ffn_norm, self.eps)
        return x_TH + self.ffn(normed)


class Model:
    """All layers, embedding and head, on one device, in one compute dtype. progress: told how many layers are
    loaded, of how many."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype,
        device: torch.device,
        kernels: Kernels,
        progress: Progress,
    ) -> None:
        self.spec, self.dtype, self.device, self.kernels = checkpoint.spec, dtype, device, kernels
        whole = LayerWeights(checkpoint, "", dtype, device)
        self.embed = whole.get("embed")
        self.head = whole.linear("head")
        self.final_norm = whole.get("final_norm")
        self.rope = Rope(self.spec.rope, self.spec.max_positions, device)
        self.layers: list[Layer] = []
        for number, layer in enumerate(self.spec.layers):
            weights = LayerWeights(checkpoint, f"layers.{number}.", dtype, device)
            self.layers.append(Layer(self.spec, layer, weights, kernels))
            progress(number + 1, self.spec.num_layers)
        self.moes = [layer.ffn for layer in self.layers if isinstance(layer.ffn, Moe)]

    def __call__(self, batch: Batch, cache: KvCache) -> Tensor:
        """Logits in fp32, [S, V], of the batch's sampled tokens."""
        x_TH = self.embed[batch.token_ids]
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            x_TH = layer(x_TH, layer_cache, batch, self.rope)
        x_SH = x_TH if batch.sampled is None else x_TH[batch.sampled]
        x_SH = self.kernels.rms_norm(x_SH, self.final_norm, self.spec.norm_eps)
        return self.kernels.linear(x_SH, self.head.weight, self.head.bias).float()
