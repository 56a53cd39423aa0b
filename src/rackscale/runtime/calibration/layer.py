"""One layer, quantised stage by stage: each stage sees what those before it have become.

Axes: T tokens of a window, K experts a token, H hidden.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rackscale.checkpoint import Checkpoint
from rackscale.runtime.calibration.moments import Moments
from rackscale.runtime.calibration.taps import Taps
from rackscale.runtime.calibration.windows import Windows
from rackscale.runtime.kernels.reference import expert_inner
from rackscale.runtime.model.feed_forward import Mlp, Moe, load_mlp, load_moe
from rackscale.runtime.model.gqa import Gqa, load_gqa
from rackscale.runtime.model.mla import Mla, load_mla
from rackscale.runtime.model.weights import Loader
from rackscale.runtime.precision import EXACT
from rackscale.specs import MlaSpec

MOMENTS_BYTES = 1 << 30  # experts are taken so many at a time that their moments fit
# An expert's moments count as if it had seen so many tokens of the whole layer's as well.
SHARED_TOKENS = 64

Group = tuple[str, ...]
Quantise = Callable[[Sequence[Group], Moments], None]
"""Quantises groups of roles, one for each matrix of the moments, and puts them in the quantised side's
checkpoint."""

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Side:
    """The original model, or the one that is being quantised: its checkpoint, and the hidden states [T, H] of
    each window, which go on from layer to layer."""

    checkpoint: Checkpoint
    hidden: list[Tensor]


class OpenLayer:
    """A side's weights of a layer as they are now. windows: what attention runs over."""

    def __init__(self, side: Side, number: int, windows: Windows) -> None:
        self.side, self.spec, self.windows = side, side.checkpoint.spec, windows
        self.layer, self.taps = self.spec.layers[number], Taps()
        loader = Loader(
            side.checkpoint, precision=EXACT, device=torch.device("cpu"), kernels=self.taps, packer=None
        )
        self.loader = loader.layer(number)

    def normed(self, norm: str) -> Iterable[Tensor]:
        """Each window behind a norm of the layer."""
        weight = self.loader.get(norm)
        return (self.taps.rms_norm(hidden, weight, self.spec.norm_eps) for hidden in self.side.hidden)

    def go_on(self, norm: str, forward: Forward) -> None:
        """Add what a part of the layer gives to the hidden states."""
        for number, normed in enumerate(self.normed(norm)):
            self.side.hidden[number] = self.side.hidden[number] + forward(normed)

    def attention(self) -> Forward:
        """Tapped: kv_b, q_b and o."""
        spec, taps = self.spec, self.taps
        attention: Gqa | Mla
        if isinstance(spec.attention, MlaSpec):
            latent = load_mla(self.loader, spec.attention, spec.rope)
            taps.watch_norm("attn.kv_b", latent.latent_norm)
            if latent.query_up is not None:
                taps.watch("attn.q_b", latent.query_up)
            taps.watch("attn.o", latent.out)
            attention = Mla(latent, taps)
        else:
            grouped = load_gqa(self.loader, spec.attention, self.layer.window, spec.norm_eps)
            taps.watch("attn.o", grouped.out)
            attention = Gqa(grouped, taps)
        windows = self.windows
        return lambda x_TH: attention(x_TH, windows.kv, windows.batch(len(x_TH)), windows.rope)

    def mlp(self, role: str) -> Forward:
        """Tapped: down. role: "ffn" or "shared"."""
        weights = load_mlp(self.loader, role)
        self.taps.watch(f"{role}.down", weights.down)
        return Mlp(weights, self.taps)

    def moe(self) -> Moe:
        """Router, experts and all."""
        assert self.spec.moe is not None, "a layer with experts has a MoeSpec"
        return Moe(load_moe(self.loader, self.spec.moe), self.taps, None, 0)


class LayerPass:
    """See the module. groups: of roles that share a tensor scale; those of other layers are left alone."""

    def __init__(
        self,
        number: int,
        *,
        original: Side,
        quantised: Side,
        windows: Windows,
        groups: Iterable[Group],
        quantise: Quantise,
    ) -> None:
        self._number, self._windows, self._quantise = number, windows, quantise
        self._original, self._quantised = original, quantised
        self._spec = original.checkpoint.spec
        prefix = f"layers.{number}."
        self._groups = {
            group[0].removeprefix(prefix): group for group in groups if group[0].startswith(prefix)
        }

    def run(self) -> None:
        """Quantise what is wanted of the layer, and take both sides' hidden states through it."""
        self._behind_norm("attn_norm", "attn.q", "attn.q_a", "attn.kv_a")
        for role in ("attn.kv_b", "attn.q_b", "attn.o"):
            self._tapped(role, "attn_norm", lambda layer: layer.attention())
        for layer in self._open():
            layer.go_on("attn_norm", layer.attention())
        if not self._spec.layers[self._number].moe:
            self._mlp("ffn")
            for layer in self._open():
                layer.go_on("ffn_norm", layer.mlp("ffn"))
            return
        self._mlp("shared")
        self._experts()
        for layer in self._open():
            layer.go_on("ffn_norm", layer.moe())

    def _open(self) -> tuple[OpenLayer, OpenLayer]:
        """The quantised side and the original."""
        quantised = OpenLayer(self._quantised, self._number, self._windows)
        return quantised, OpenLayer(self._original, self._number, self._windows)

    def _mlp(self, role: str) -> None:
        self._behind_norm("ffn_norm", f"{role}.gate")
        self._tapped(f"{role}.down", "ffn_norm", lambda layer: layer.mlp(role))

    def _behind_norm(self, norm: str, *roles: str) -> None:
        """What is multiplied with the layer's normed input, by the first roles of their groups."""
        groups = [self._groups[role] for role in roles if role in self._groups]
        if not groups:
            return
        moments = Moments(1, self._spec.hidden)
        for x_TH, y_TH in zip(*(layer.normed(norm) for layer in self._open()), strict=True):
            moments.add(0, x_TH, y_TH)
        for group in groups:
            self._quantise([group], moments)

    def _tapped(self, role: str, norm: str, part: Callable[[OpenLayer], Forward]) -> None:
        """What a part of the layer multiplies inside of it."""
        if role not in self._groups:
            return
        layers = self._open()
        forwards = [part(layer) for layer in layers]
        moments = None
        for normed in zip(*(layer.normed(norm) for layer in layers), strict=True):
            for forward, x_TH in zip(forwards, normed, strict=True):
                forward(x_TH)
            x_TK, y_TK = (layer.taps.seen[role] for layer in layers)
            moments = moments or Moments(1, x_TK.shape[1])
            moments.add(0, x_TK, y_TK)
        assert moments is not None, "a text has windows"
        self._quantise([self._groups[role]], moments)

    def _experts(self) -> None:
        """Gate and up of all experts, then down of all. The square of an expert's error counts as much as
        that of its weight in the token's sum."""
        if "experts.0.gate" not in self._groups:
            return
        quantised, original = self._open()
        before = quantised.moe()
        pairs = list(zip(quantised.normed("ffn_norm"), original.normed("ffn_norm"), strict=True))
        routes = [_route(before, x_TH) for x_TH, _ in pairs]
        everyone = Moments(1, self._spec.hidden)
        for x_TH, y_TH in pairs:
            everyone.add(0, x_TH, y_TH)
        gates = torch.cat([gates_TK for gates_TK, _ in routes])
        share = SHARED_TOKENS / len(gates) * float(gates.square().mean())
        num_experts, width = before.spec.router.num_experts, before.spec.width
        for numbers in _portions(num_experts, self._spec.hidden):
            moments = Moments(len(numbers), self._spec.hidden)
            for number in numbers:
                for (x_TH, y_TH), route in zip(pairs, routes, strict=True):
                    tokens, counts_T = _tokens_of(number, route)
                    moments.add(number - numbers.start, x_TH[tokens], y_TH[tokens], counts_T)
            moments.blend(everyone, share)
            self._quantise([self._groups[f"experts.{number}.gate"] for number in numbers], moments)
        new, old = (layer.moe().weights.experts for layer in self._open())
        for numbers in _portions(num_experts, width):
            moments = Moments(len(numbers), width)
            for number in numbers:
                for (x_TH, y_TH), route in zip(pairs, routes, strict=True):
                    tokens, counts_T = _tokens_of(number, route)
                    inner = expert_inner(x_TH[tokens], number, new)
                    moments.add(
                        number - numbers.start, inner, expert_inner(y_TH[tokens], number, old), counts_T
                    )
            self._quantise([self._groups[f"experts.{number}.down"] for number in numbers], moments)


def _route(moe: Moe, x_TH: Tensor) -> tuple[Tensor, Tensor]:
    logits_TE = moe.kernels.linear(x_TH, moe.weights.router)
    return moe.kernels.route(logits_TE, moe.weights.correction_E, moe.spec.router)


def _portions(num_experts: int, num_columns: int) -> Iterable[range]:
    """Experts whose moments fit in memory together."""
    count = max(1, MOMENTS_BYTES // (8 * num_columns**2))
    return (range(start, min(start + count, num_experts)) for start in range(0, num_experts, count))


def _tokens_of(expert: int, route: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Which tokens got the expert, and what the square of its error counts in each."""
    gates_TK, experts_TK = route
    tokens, places = (experts_TK == expert).nonzero(as_tuple=True)
    return tokens, gates_TK[tokens, places].square()
