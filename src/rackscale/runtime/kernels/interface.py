"""What every implementation of the kernels offers.

Axes: T tokens, D decodes, A heads, G heads of keys, H hidden, E experts, K experts per token, R latent rank,
W = R + rope width, N head width, M layers with experts.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from rackscale.runtime.batch import Batch, Decodes
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.kernels.weights import ExpertWeights, Linear, MlpWeights, ModelWeights
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.precision import Products
from rackscale.runtime.rope import Rope
from rackscale.specs import RouterSpec

AfterLayer = Callable[[int], None]


class Decoder(Protocol):
    """A whole model in one call."""

    def __call__(
        self, batch: Batch, cache: KvCache, after_layer: AfterLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [S, V] of the batch's sampled tokens, and how many tokens each expert got, [M, E] in int32.
        Writes the tokens' KV; after_layer is told the number of each layer whose KV is written."""
        ...


class Kernels(Protocol):
    """All take and give tensors of the compute dtype, contiguous unless said otherwise.

    keeps_bf16: bf16 weights stay so under an fp32 compute dtype, and are widened while they are used.
    packs: weights of a few bits stay so (see `packing`), and are widened while they are used.
    """

    name: str
    keeps_bf16: bool
    packs: bool

    def rounding_to(self, products: Products) -> "Kernels":
        """The same, with products that round their input so; kernels that do not pack stay as they are."""
        ...

    def decoder(self, weights: ModelWeights, rope: Rope, ranks: AllToAll | None) -> Decoder | None:
        """The model as one call, or None where these kernels have none for it. ranks: that share the
        experts."""
        ...

    def rms_norm(self, x_TH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        """X / rms(x) * weight; the rows of x may be part of wider ones."""
        ...

    def rotate(self, x_TAN: Tensor, rope: Rope, positions_T: Tensor) -> None:
        """Rotate the pairs (i, i + N / 2) of every head, in place; x may be part of a wider tensor."""
        ...

    def linear(self, x_TH: Tensor, layer: Linear) -> Tensor:
        """X @ weight + bias; the rows of x may be part of wider ones."""
        ...

    def mlp(self, x_TH: Tensor, mlp: MlpWeights) -> Tensor:
        """down(silu(gate) * up), [T, H]."""
        ...

    def route(
        self, logits_TE: Tensor, correction_E: Tensor | None, router: RouterSpec
    ) -> tuple[Tensor, Tensor]:
        """Weights [T, K] in fp32 and experts [T, K] in int32 of each token. logits in fp32."""
        ...

    def experts(
        self, hidden_TH: Tensor, weights_TK: Tensor, experts_TK: Tensor, experts: ExpertWeights
    ) -> Tensor:
        """The weighted sum of each token's experts, [T, H]."""
        ...

    def mla_decode(
        self, query_DAW: Tensor, cache_SW: Tensor, decodes: Decodes, rank: int, scale: float
    ) -> Tensor:
        """Attention on the compressed cache, with absorbed queries: the weighted latents [D, A, R]."""
        ...

    def gqa_decode(
        self,
        query_DAN: Tensor,
        keys_SGN: Tensor,
        values_SGN: Tensor,
        decodes: Decodes,
        scale: float,
        window: int | None,
        sinks_A: Tensor | None,
    ) -> Tensor:
        """Attention over paged keys and values, [D, A, N]. window: how many of the last tokens are
        seen. sinks: one more logit a head, without a value."""
        ...
