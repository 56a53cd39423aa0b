"""Which expert is in which slot of which rank, for all layers.

Axes: L layers, E logical experts, R ranks, N slots of all ranks together, S slots of one rank, C copies.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rackscale.core import SpecError

Ints: TypeAlias = npt.NDArray[np.int32]
Bools: TypeAlias = npt.NDArray[np.bool_]
Loads: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Placement:
    """Slot s of a layer is on rank s // slots_per_rank, and holds one expert.

    logical: int32 [L, N], the expert in each slot.
    replicas: int32 [L, E], how many slots hold each expert; at least 1.
    imbalance: float64 [L], max/mean over the ranks, for the loads that it was made from.
    """

    logical: Ints
    replicas: Ints
    imbalance: Loads
    num_ranks: int

    @classmethod
    def of(cls, logical: npt.ArrayLike, loads: npt.ArrayLike, num_ranks: int) -> "Placement":
        """The placement that lays `logical` [L, N] out over the ranks, for loads [L, E].

        Raises SpecError if an expert has no slot, or the ranks do not divide the slots.
        """
        logical_LN, load_LE = np.asarray(logical, dtype=np.int32), measured(loads)
        check_slots(logical_LN.shape[1], load_LE.shape[1], num_ranks)
        replicas_LE = np.stack([np.bincount(row_N, minlength=load_LE.shape[1]) for row_N in logical_LN])
        if not replicas_LE.all() or replicas_LE.shape != load_LE.shape:
            hint = "name each of the loads' layers and experts in at least one slot"
            raise SpecError("the slots do not hold the experts that have loads", hint=hint)
        imbalance_L = _imbalance(_rank_loads(logical_LN, replicas_LE, load_LE, num_ranks))
        return cls(
            logical=logical_LN,
            replicas=replicas_LE.astype(np.int32),
            imbalance=imbalance_L,
            num_ranks=num_ranks,
        )

    def layer(self, number: int) -> "Placement":
        """One layer's, as a placement of one layer."""
        return self._with(slice(number, number + 1))

    def with_layer(self, number: int, other: "Placement") -> "Placement":
        """The same with one layer as `other`, a placement of one layer, has it."""
        parts = [self._with(slice(0, number)), other, self._with(slice(number + 1, None))]
        return Placement(
            logical=np.concatenate([part.logical for part in parts]),
            replicas=np.concatenate([part.replicas for part in parts]),
            imbalance=np.concatenate([part.imbalance for part in parts]),
            num_ranks=self.num_ranks,
        )

    def _with(self, layers: slice) -> "Placement":
        return Placement(
            logical=self.logical[layers],
            replicas=self.replicas[layers],
            imbalance=self.imbalance[layers],
            num_ranks=self.num_ranks,
        )

    @property
    def num_layers(self) -> int:
        return len(self.replicas)

    @property
    def num_experts(self) -> int:
        return int(self.replicas.shape[1])

    @property
    def slots_per_rank(self) -> int:
        return int(self.logical.shape[1]) // self.num_ranks

    @property
    def rank_of_slot(self) -> Ints:
        """int32 [N]."""
        return np.arange(self.logical.shape[1], dtype=np.int32) // np.int32(self.slots_per_rank)

    @property
    def experts_of_ranks(self) -> Ints:
        """int32 [L, R, S], a view of `logical`."""
        return self.logical.reshape(self.num_layers, self.num_ranks, self.slots_per_rank)

    def holds(self) -> Bools:
        """[L, R, E]: whether a rank holds an expert."""
        held_LRE = np.zeros((self.num_layers, self.num_ranks, self.num_experts), dtype=np.bool_)
        np.put_along_axis(held_LRE, self.experts_of_ranks, values=True, axis=2)
        return held_LRE

    def rank_loads(self, loads: npt.ArrayLike) -> Loads:
        """float64 [L, R]: the ranks' loads, for loads [L, E] that split evenly over an expert's copies."""
        load_LE = checked(loads)
        if load_LE.shape != self.replicas.shape:
            hint = f"{self.num_layers} layers of {self.num_experts} experts are placed"
            raise SpecError(f"loads of shape {load_LE.shape}", hint=hint)
        return _rank_loads(self.logical, self.replicas, load_LE, self.num_ranks)

    def imbalance_of(self, loads: npt.ArrayLike) -> Loads:
        """float64 [L]: max/mean over the ranks, for loads [L, E]; a layer without any load counts as even."""
        return _imbalance(self.rank_loads(measured(loads)))

    def ranks_of(self) -> tuple[Ints, Ints]:
        """Where each expert is: int32 [L, E, C] ranks, ascending, padded with -1; int32 [L, E] how many.

        C is the most ranks that any expert is on. A rank counts once, however many of its slots it uses.
        """
        held_LER = self.holds().transpose(0, 2, 1)
        count_LE = held_LER.sum(axis=2, dtype=np.int32)
        rank_LEC = np.full((*count_LE.shape, int(count_LE.max())), -1, dtype=np.int32)
        used_LEC = np.arange(rank_LEC.shape[2]) < count_LE[:, :, None]
        rank_LEC[used_LEC] = np.nonzero(held_LER)[2]
        return rank_LEC, count_LE


def checked(loads: npt.ArrayLike) -> Loads:
    """float64 [L, E]. Raises SpecError unless they are a table of finite numbers, none below 0."""
    load_LE = np.asarray(loads, dtype=np.float64)
    if load_LE.ndim != 2 or not load_LE.size or not np.isfinite(load_LE).all() or (load_LE < 0).any():
        raise SpecError("these are no loads", hint="a row a layer, a finite number >= 0 an expert")
    return load_LE


def measured(loads: npt.ArrayLike) -> Loads:
    """The loads, and 1 for each expert of a layer that nothing was measured of."""
    load_LE = checked(loads)
    silent_L1 = load_LE.max(axis=1, keepdims=True) == 0
    return np.where(silent_L1, 1.0, load_LE)


def check_slots(slots: int, num_experts: int, num_ranks: int) -> None:
    """Raises SpecError unless every rank gets the same number of slots, and every expert one."""
    if num_ranks < 1 or slots % num_ranks:
        raise SpecError(
            f"{slots} slots on {num_ranks} ranks", hint="give every rank the same number of slots"
        )
    if slots < num_experts:
        hint = f"at least {-(-num_experts // num_ranks)} slots a rank are needed"
        raise SpecError(f"{slots} slots for {num_experts} experts", hint=hint)


def _rank_loads(
    logical_LN: Ints, replicas_LE: npt.NDArray[np.integer], load_LE: Loads, num_ranks: int
) -> Loads:
    share_LN = np.take_along_axis(load_LE / replicas_LE, logical_LN, axis=1)
    load_LR: Loads = share_LN.reshape(len(logical_LN), num_ranks, -1).sum(axis=2)
    return load_LR


def _imbalance(load_LR: Loads) -> Loads:
    imbalance_L: Loads = load_LR.max(axis=1) / load_LR.mean(axis=1)
    return imbalance_L
