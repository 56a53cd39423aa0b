"""What every implementation of the kernels offers.

Axes: T tokens, D decodes, A heads, G heads of keys, H hidden, E experts, K experts per token, R latent rank,
W = R + rope width, N head width.
"""

from typing import Protocol

from torch import Tensor

from rackscale.runtime.batch import Decodes
from rackscale.runtime.kernels.experts import ExpertWeights
from rackscale.runtime.rope import Rope
from rackscale.specs import RouterSpec


class Kernels(Protocol):
    """All take and give contiguous tensors of the compute dtype, unless said otherwise."""

    name: str

    def rms_norm(self, x_TH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        """X / rms(x) * weight; the rows of x may be part of wider ones."""
        ...

    def rotate(self, x_TAN: Tensor, rope: Rope, positions_T: Tensor) -> None:
        """Rotate the pairs (i, i + N / 2) of every head, in place; x may be part of a wider tensor."""
        ...

    def linear(self, x_TH: Tensor, weight_HN: Tensor, bias_N: Tensor | None) -> Tensor:
        """X @ weight + bias, [T, N]. The weight is input-major."""
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
