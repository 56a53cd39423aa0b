"""Kernels that keep what linear layers are given."""

from torch import Tensor

from rackscale.runtime.kernels.reference import Reference
from rackscale.runtime.kernels.weights import Linear


class Taps(Reference):
    """The reference, which leaves in `seen`, by name, the inputs of the layers that are watched."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self.seen: dict[str, Tensor] = {}

    def watch(self, name: str, layer: Linear) -> None:
        """Keep the layer's input."""
        self._names[id(layer)] = name

    def watch_norm(self, name: str, weight_H: Tensor) -> None:
        """Keep what the norm gives: latent attention absorbs the layer that follows."""
        self._names[id(weight_H)] = name

    def linear(self, x_TH: Tensor, layer: Linear) -> Tensor:
        """See `Kernels`."""
        self._keep(layer, x_TH)
        return super().linear(x_TH, layer)

    def rms_norm(self, x_TH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        """See `Kernels`."""
        normed = super().rms_norm(x_TH, weight_H, eps)
        self._keep(weight_H, normed)
        return normed

    def _keep(self, what: Linear | Tensor, tensor: Tensor) -> None:
        name = self._names.get(id(what))
        if name is not None:
            self.seen[name] = tensor
