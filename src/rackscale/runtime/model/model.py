"""A decoder-only language model of one rank."""

from collections.abc import Callable

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.runtime.batch import Batch
from rackscale.runtime.kernels import GqaWeights, Kernels, LayerWeights, MlaWeights, MlpWeights
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.model.feed_forward import Mlp, Moe, load_mlp, load_moe
from rackscale.runtime.model.gqa import Gqa, load_gqa
from rackscale.runtime.model.mla import Mla, load_mla
from rackscale.runtime.model.weights import Loader
from rackscale.runtime.rope import Rope
from rackscale.specs import GqaSpec, LayerSpec, MlaSpec, ModelSpec

Progress = Callable[[int, int], None]


class Layer:
    """Attention and a feed-forward part, each behind a norm and added to the residual."""

    def __init__(self, weights: LayerWeights, eps: float, kernels: Kernels) -> None:
        self.weights, self.eps, self.kernels = weights, eps, kernels
        attention, ffn = weights.attention, weights.ffn
        self.attention: Mla | Gqa = (
            Mla(attention, eps, kernels)
            if isinstance(attention, MlaWeights)
            else Gqa(attention, eps, kernels)
        )
        self.ffn: Mlp | Moe = Mlp(ffn, kernels) if isinstance(ffn, MlpWeights) else Moe(ffn, kernels)

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, rope: Rope) -> Tensor:
        """[T, H] to [T, H]."""
        normed = self.kernels.rms_norm(x_TH, self.weights.attention_norm, self.eps)
        x_TH = x_TH + self.attention(normed, cache, batch, rope)
        normed = self.kernels.rms_norm(x_TH, self.weights.ffn_norm, self.eps)
        return x_TH + self.ffn(normed)


class Model:
    """All layers, embedding and head, on one device, in one compute dtype.

    max_positions: how far rows reach; at most the model's own limit. progress: told how many layers are
    loaded, of how many.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype,
        device: torch.device,
        kernels: Kernels,
        max_positions: int,
        progress: Progress,
    ) -> None:
        self.spec, self.dtype, self.kernels = checkpoint.spec, dtype, kernels
        loader = Loader(checkpoint, dtype=dtype, device=device, kernels=kernels)
        self.embed = loader.matrix("embed")
        self.head = loader.linear("head")
        self.final_norm = loader.get("final_norm")
        self.rope = Rope(self.spec.rope, max_positions, device)
        weights = []
        for number, layer in enumerate(self.spec.layers):
            weights.append(_load_layer(loader.layer(number), self.spec, layer))
            progress(number + 1, self.spec.num_layers)
        self.layers = [Layer(layer, self.spec.norm_eps, kernels) for layer in weights]
        self.moes = [layer.ffn for layer in self.layers if isinstance(layer.ffn, Moe)]
        self.num_experts = 0 if self.spec.moe is None else self.spec.moe.router.num_experts
        self.chosen_MTK = torch.zeros(0, 0, 0, dtype=torch.int32)
        self._stack = kernels.stack(weights, self.rope, self.spec.norm_eps)

    def __call__(self, batch: Batch, cache: KvCache) -> Tensor:
        """Logits in fp32, [S, V], of the batch's sampled tokens. Leaves in `chosen_MTK` which experts the
        tokens got in each layer with experts."""
        x_TH = self.embed[batch.token_ids].to(self.dtype)
        if self._stack is None or batch.chunks:
            for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
                x_TH = layer(x_TH, layer_cache, batch, self.rope)
            if self.moes:
                self.chosen_MTK = torch.stack([moe.chosen_TK for moe in self.moes])
        else:
            self.chosen_MTK = self._stack(x_TH, cache, batch.decodes)
        x_SH = x_TH if batch.sampled is None else x_TH[batch.sampled]
        x_SH = self.kernels.rms_norm(x_SH, self.final_norm, self.spec.norm_eps)
        return self.kernels.linear(x_SH, self.head).float()


def _load_layer(loader: Loader, model: ModelSpec, layer: LayerSpec) -> LayerWeights:
    match model.attention:
        case MlaSpec() as mla:
            attention: MlaWeights | GqaWeights = load_mla(loader, mla, model.rope)
        case GqaSpec() as gqa:
            attention = load_gqa(loader, gqa, layer.window)
    if layer.moe:
        assert model.moe is not None, "a layer with experts has a MoeSpec"
    return LayerWeights(
        attention_norm=loader.get("attn_norm"),
        attention=attention,
        ffn_norm=loader.get("ffn_norm"),
        ffn=load_moe(loader, model.moe) if layer.moe and model.moe else load_mlp(loader, "ffn"),
    )
