"""A decoder-only language model of one rank."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.core import SpecError
from rackscale.runtime.batch import Batch
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.comm.team import Team
from rackscale.runtime.kernels import (
    GqaWeights,
    Kernels,
    LayerWeights,
    MlaWeights,
    MlpWeights,
    ModelWeights,
)
from rackscale.runtime.kernels.interface import AfterLayer
from rackscale.runtime.kernels.packing import Packer
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.model.feed_forward import Mlp, Moe, load_mlp, load_moe
from rackscale.runtime.model.gqa import Gqa, load_gqa, share_gqa
from rackscale.runtime.model.mla import Mla, load_mla, share_mla
from rackscale.runtime.model.weights import Loader
from rackscale.runtime.precision import precision_of
from rackscale.runtime.rope import Rope
from rackscale.specs import GqaSpec, LayerSpec, MlaSpec, ModelSpec

Progress = Callable[[int, int], None]


def _no_progress(_done: int, _total: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """What all ranks of a host share: weights and tables, loaded once."""

    spec: ModelSpec
    weights: ModelWeights
    rope: Rope
    dtype: torch.dtype
    device: torch.device
    kernels: Kernels


def load_model(
    checkpoint: Checkpoint,
    *,
    kernels: Kernels,
    max_positions: int,
    activations: str = "auto",
    weights: str = "auto",
    device: str = "cpu",
    progress: Progress = _no_progress,
) -> LoadedModel:
    """All layers, embedding and head, on one device, in one compute dtype.

    max_positions: how far rows reach; at most the model's own limit. activations: see `precision_of`.
    weights: nvfp4: experts are quantised if they are not yet; else as in the checkpoint. progress: told how
    many layers are loaded, of how many.
    """
    spec, place = checkpoint.spec, torch.device(device)
    quantises = weights == "nvfp4"
    if quantises and not kernels.packs:
        raise SpecError(
            f"--weights nvfp4 with {kernels.name} kernels", hint="only native ones compute on packed weights"
        )
    quantised = quantises or checkpoint.is_quantised
    precision = precision_of(activations, packs=kernels.packs, quantised=quantised)
    kernels = kernels.rounding_to(precision.products)
    packer = Packer(len(os.sched_getaffinity(0))) if kernels.packs else None
    loader = Loader(
        checkpoint, precision=precision, device=place, kernels=kernels, packer=packer, quantises=quantises
    )
    layers = []
    packed: Future[None] | None = None
    with ThreadPoolExecutor(1) as behind:  # one layer is packed while the next one is looked up

        def pack() -> Future[None]:
            if packed is not None:
                packed.result()
            return behind.submit(loader.packing())

        for number, layer in enumerate(spec.layers):
            layers.append(_load_layer(loader.layer(number), spec, layer))
            packed = pack()
            progress(number + 1, spec.num_layers)
        loaded = ModelWeights(
            eps=spec.norm_eps,
            embed=loader.matrix("embed"),
            layers=tuple(layers),
            final_norm=loader.get("final_norm"),
            head=loader.linear("head"),
        )
        pack().result()
    return LoadedModel(
        spec=spec,
        weights=loaded,
        rope=Rope(spec.rope, max_positions, place),
        dtype=precision.dtype,
        device=place,
        kernels=kernels,
    )


def share_model(loaded: LoadedModel, tp: int) -> tuple[LoadedModel, ...]:
    """The model as each of `tp` members of a team has it. Only queries, keys and values are copied: each
    member has a part of them. Raises SpecError where heads do not divide."""
    if tp == 1:
        return (loaded,)
    return tuple(
        replace(
            loaded,
            weights=replace(
                loaded.weights,
                layers=tuple(_share_layer(layer, tp, member) for layer in loaded.weights.layers),
            ),
        )
        for member in range(tp)
    )


def _share_layer(layer: LayerWeights, tp: int, member: int) -> LayerWeights:
    attention = layer.attention
    if isinstance(attention, MlaWeights):
        return replace(layer, attention=share_mla(attention, tp, member))
    return replace(layer, attention=share_gqa(attention, tp, member))


class Layer:
    """Attention and a feed-forward part, each behind a norm and added to the residual. Members of a team have
    all tokens and the whole residual: they add up what their heads give, and deal out the tokens for what
    comes after attention."""

    def __init__(
        self, weights: LayerWeights, eps: float, kernels: Kernels, ffn: Mlp | Moe, team: Team | None = None
    ) -> None:
        self.weights, self.eps, self.kernels, self.ffn, self.team = weights, eps, kernels, ffn, team
        attention = weights.attention
        self.attention: Mla | Gqa = (
            Mla(attention, kernels) if isinstance(attention, MlaWeights) else Gqa(attention, kernels, team)
        )

    def __call__(self, x_TH: Tensor, cache: tuple[Tensor, ...], batch: Batch, rope: Rope) -> Tensor:
        """[T, H] to [T, H]. A rank without tokens still takes part in the all-to-all."""
        if len(x_TH):
            normed = self.kernels.rms_norm(x_TH, self.weights.attention_norm, self.eps)
            part = self.attention(normed, cache, batch, rope)
            x_TH = x_TH + (part if self.team is None else self.team.all_reduce(part))
        if self.team is None:
            return x_TH + self._feed_forward(x_TH)
        mine = slice(self.team.index, None, self.team.size)
        part = torch.zeros_like(x_TH)
        part[mine] = self._feed_forward(x_TH[mine])
        return x_TH + self.team.all_reduce(part)

    def _feed_forward(self, x_TH: Tensor) -> Tensor:
        return self.ffn(self.kernels.rms_norm(x_TH, self.weights.ffn_norm, self.eps))


class Model:
    """One rank's view of a loaded model. ranks: those that it shares the experts with; None: all are here.
    team: those that it shares the attention with, of which the model has this member's share."""

    def __init__(self, loaded: LoadedModel, ranks: AllToAll | None = None, team: Team | None = None) -> None:
        self.loaded, self.weights, self.rope = loaded, loaded.weights, loaded.rope
        self.kernels = kernels = loaded.kernels
        self.moes: list[Moe] = []
        self.layers = []
        for layer in self.weights.layers:
            ffn: Mlp | Moe
            if isinstance(layer.ffn, MlpWeights):
                ffn = Mlp(layer.ffn, kernels)
            else:
                ffn = Moe(layer.ffn, kernels, ranks, len(self.moes))
                self.moes.append(ffn)
            self.layers.append(Layer(layer, self.weights.eps, kernels, ffn, team))
        self.loads_ME = torch.zeros(0, 0, dtype=torch.int32)
        self._team = team
        self._decoder = None if team is not None else kernels.decoder(self.weights, self.rope, ranks)

    def __call__(self, batch: Batch, cache: KvCache, after_layer: AfterLayer | None = None) -> Tensor:
        """Logits of the batch's sampled tokens in fp32, [S, V]. Leaves in `loads_ME` how many tokens each
        expert of each layer with experts got, in int32. after_layer: told the number of each layer whose KV
        is written."""
        if self._decoder is not None:
            logits_SV, self.loads_ME = self._decoder(batch, cache, after_layer)
            return logits_SV
        x_TH = self.weights.embed[batch.token_ids].to(self.loaded.dtype)
        for number, (layer, layer_cache) in enumerate(zip(self.layers, cache.layers, strict=True)):
            x_TH = layer(x_TH, layer_cache, batch, self.rope)
            if after_layer is not None:
                after_layer(number)
        if self.moes:
            self.loads_ME = torch.stack([moe.loads() for moe in self.moes])
            if self._team is not None:  # counts stay exact in fp32
                self.loads_ME = self._team.all_reduce(self.loads_ME.float()).int()
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
