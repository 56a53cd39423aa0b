"""A team through memory that all members have mapped (csrc/team.cpp)."""

from torch import Tensor

from rackscale.core import RankLostError
from rackscale.runtime import _native
from rackscale.runtime.comm.all_to_all import CommTimes
from rackscale.runtime.comm.shared_memory import NS_PER_S, SPIN_S

PIECE = 1 << 18  # floats that are exchanged at once: two pieces stay within a core's cache


def team_bytes(piece: int = PIECE) -> int:
    """The size of one member's segment."""
    return _native.team_bytes(piece)


class SharedTeam:
    """See `Team`. addresses: of all members' segments, of `team_bytes` each and zeroed at first. spin_s,
    limit_s: see `SharedAllToAll`."""

    def __init__(
        self,
        index: int,
        addresses: list[int],
        *,
        piece: int = PIECE,
        spin_s: float = SPIN_S,
        limit_s: float = 60.0,
    ) -> None:
        self.index, self.size = index, len(addresses)
        self._native = _native.Team(index, piece, addresses, int(spin_s * NS_PER_S), int(limit_s * NS_PER_S))

    def all_reduce(self, part: Tensor) -> Tensor:
        summed = part.float().contiguous()
        try:
            self._native.all_reduce(summed.data_ptr(), summed.numel())
        except RuntimeError as error:
            raise RankLostError(str(error)) from None
        return summed.to(part.dtype)

    def take_times(self) -> CommTimes:
        wait_ns, copy_ns, num_bytes = self._native.take_times()
        return CommTimes(wait_s=wait_ns / NS_PER_S, copy_s=copy_ns / NS_PER_S, num_bytes=num_bytes)
