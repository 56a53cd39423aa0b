"""A decoder-only language model of one rank."""

from collections.abc import Callable

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.runtime.batch import Batch
from rackscale.runtime.kernels import GqaWeights, Kernels, LayerWeights, MlaWeights, MlpWeights, ModelWeights
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
            Mla(attention, kernels) if isinstance(attention, MlaWeights) else Gqa(attention, kernels)
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
        layers = []
        for number, layer in enumerate(self.spec.layers):
            layers.append(_load_layer(loader.layer(number), self.spec, layer))
            progress(number + 1, self.spec.num_layers)
        self.weights = ModelWeights(
            eps=self.spec.norm_eps,
            embed=loader.matrix("embed"),
            layers=tuple(layers),
            final_norm=loader.get("final_norm"),
            head=loader.linear("head"),
        )
        self.rope = Rope(self.spec.rope, max_positions, device)
        self.layers = [Layer(layer, self.spec.norm_eps, kernels) for layer in layers]
        self.moes = [layer.ffn for layer in self.layers if isinstance(layer.ffn, Moe)]
        self.loads_ME = torch.zeros(0, 0, dtype=torch.int32)
        self._decoder = kernels.decoder(self.weights, self.rope)

    def __call__(self, batch: Batch, cache: KvCache) -> Tensor:
        """Logits of the batch's sampled tokens in fp32, [S, V]. Leaves in `loads_ME` how many tokens each
        expert of each layer with experts got, in int32."""
        if self._decoder is not None and not batch.chunks:
            logits_SV, self.loads_ME = self._decoder(batch, cache)
            return logits_SV
        x_TH = self.weights.embed[batch.token_ids].to(self.dtype)
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            x_TH = layer(x_TH, layer_cache, batch, self.rope)
        if self.moes:
            self.loads_ME = torch.stack([moe.loads() for moe in self.moes])
        x_SH = self.kernels.rms_norm(x_TH[batch.samples], self.weights.final_norm, self.weights.eps)
        return self.kernels.linear(x_SH, self.weights.head).float()


def _load_layer(loader: Loader, model: ModelSpec, layer: LayerSpec) -> LayerWeights:
    match model.attention:
        case MlaSpec() as mla:
            attention: MlaWeights | GqaWeights = load_mla(loader, mla, model.rope)
        case GqaSpec() as gqa:
            attention = load_gqa(loader, gqa, layer.window, model.norm_eps)
    if layer.moe:
        assert model.moe is not None, "a layer with experts has a MoeSpec"
    return LayerWeights(
        attention_norm=loader.get("attn_norm"),
        attention=attention,
        ffn_norm=loader.get("ffn_norm"),
        ffn=load_moe(loader, model.moe) if layer.moe and model.moe else load_mlp(loader, "ffn"),
    )
