"""Who turns matrices into codes and scales."""

from typing import Protocol

from torch import Tensor

from rackscale.checkpoint.codecs import Packed


class Encoder(Protocol):
    """Called from several threads at once."""

    def encode(self, roles: tuple[str, ...], weights: tuple[Tensor, ...]) -> tuple[Packed, ...]:
        """Matrices [N, K] that share a tensor scale (gate and up; q, k and v), in the file's dtype or fp32,
        all finite. The answers are in the job's format and have one tensor_scale; input_scale where inputs
        were measured, and then for every matrix."""
        ...
