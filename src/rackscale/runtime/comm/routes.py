"""Which token goes to which rank, for ranks that torch has to tell apart (csrc/all_to_all.cpp does the same).

Axes: T tokens, K experts a token, E experts, C copies, R ranks, N pairs of a rank and a token that it gets.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rackscale.core import IntColumn


class Copies:
    """The ranks that have a layer's experts: ranks_EC, of which counts_E are valid; 0: nobody may ask for it.

    Raises ValueError where a rank is not there.
    """

    def __init__(
        self, ranks_EC: IntColumn, counts_E: IntColumn, num_ranks: int, device: torch.device
    ) -> None:
        self._ranks_EC = torch.as_tensor(ranks_EC, dtype=torch.int64).to(device, copy=True)
        self._counts_E = torch.as_tensor(counts_E, dtype=torch.int64).to(device, copy=True)
        slots_C = torch.arange(self._ranks_EC.shape[1], device=device)
        used_EC = slots_C < self._counts_E[:, None]
        if ((self._ranks_EC < 0) | (self._ranks_EC >= num_ranks))[used_EC].any():
            raise ValueError("a copy is on a rank that is not there")
        if (self._counts_E > len(slots_C)).any():
            raise ValueError("more copies than ranks are named")

    def targets(self, experts_TK: Tensor, first_turn: int) -> Tensor:
        """The ranks that the tokens ask, [T, K]; -1 where the expert is -1. Copies take turns, by token.

        Raises ValueError where nobody has an expert.
        """
        asked_TK = experts_TK >= 0
        if (experts_TK >= len(self._counts_E)).any():
            raise ValueError("an expert has no copy")
        experts_TK = experts_TK.clamp(min=0)
        counts_TK = self._counts_E[experts_TK]
        if (asked_TK & (counts_TK < 1)).any():
            raise ValueError("an expert has no copy")
        turns_T = first_turn + torch.arange(len(experts_TK), device=experts_TK.device)
        ranks_TK = self._ranks_EC[experts_TK, turns_T[:, None] % counts_TK.clamp(min=1)]
        return torch.where(asked_TK, ranks_TK, -1)


class Routes(NamedTuple):
    """Each token once for each rank that has any of its experts, ranks and then tokens ascending. ranks_N,
    tokens_N: which. experts_NK (int32), gates_NK: those of the rank, first, and then -1 and 0."""

    ranks_N: Tensor
    tokens_N: Tensor
    experts_NK: Tensor
    gates_NK: Tensor


def routes(targets_TK: Tensor, experts_TK: Tensor, gates_TK: Tensor, num_ranks: int) -> Routes:
    """targets_TK: see `Copies.targets`."""
    all_R = torch.arange(num_ranks, device=targets_TK.device)
    ranks_N, tokens_N = (targets_TK == all_R[:, None, None]).any(-1).nonzero(as_tuple=True)
    here_NK = targets_TK[tokens_N] == ranks_N[:, None]
    order_NK = (~here_NK).int().argsort(dim=1, stable=True)
    experts_NK = torch.where(here_NK, experts_TK[tokens_N], -1).gather(1, order_NK)
    gates_NK = torch.where(here_NK, gates_TK[tokens_N], 0.0).gather(1, order_NK)
    return Routes(ranks_N, tokens_N, experts_NK.int(), gates_NK)
