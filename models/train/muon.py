"""Muon: momentum whose matrices are made orthogonal before they are applied.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the
quintic's coefficients are from there. Stacked matrices (experts) are treated one by one, in a batch.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end within 0.7 to 1.2."""
    a, b, c = COEFFICIENTS
    x = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrices.shape[-2] > matrices.shape[-1] else x


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions or more. Weight decay is decoupled."""

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure is taken
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, group)

    def _update(self, param: Tensor, group: dict[str, float]) -> None:
        state = self.state[param]
        velocity = state.setdefault("velocity", torch.zeros_like(param))
        velocity.lerp_(param.grad, 1 - group["momentum"])
        update = orthogonalise(param.grad.lerp(velocity, group["momentum"]))
        scale = max(1.0, param.shape[-2] / param.shape[-1]) ** 0.5
        param.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-group["lr"] * scale)
