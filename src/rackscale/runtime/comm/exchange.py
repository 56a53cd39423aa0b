"""What ranks of a process group send to each other, with a limit on every wait."""

from datetime import timedelta
from time import perf_counter

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ProcessGroupGloo, Work

from rackscale.core import RankLostError
from rackscale.runtime.comm.all_to_all import CommTimes
from rackscale.runtime.network import NETWORK_ERRORS


class Exchange:
    """One rank's end. device: where the group takes tensors from. limit_s: of every wait; a group that let it
    pass is of no use any more."""

    def __init__(self, group: ProcessGroup | ProcessGroupGloo, device: torch.device, limit_s: float) -> None:
        self.rank, self.num_ranks = group.rank(), group.size()
        self.device, self._group, self._limit_s = device, group, limit_s
        self._wait_s = self._copy_s = 0.0
        self._num_bytes = 0

    def counts(self, to_R: Tensor) -> Tensor:
        """A number for each rank; gives those of all ranks for this one. int64, on the CPU."""
        from_R = torch.empty(self.num_ranks, dtype=torch.int64, device=self.device)
        start_s = perf_counter()
        pending = self._begin(from_R, to_R.to(self.device), [1] * self.num_ranks, [1] * self.num_ranks)
        pending.finish()
        numbers = from_R.cpu()  # with NCCL, the wait is here
        self._wait_s += perf_counter() - start_s
        return numbers

    def rows(self, to_NB: Tensor, to_R: Tensor, from_R: Tensor) -> "Pending":
        """to_R[r] rows of `to_NB`, uint8, go to rank r, and from_R[r] come from it, in the order of ranks."""
        from_NB = to_NB.new_empty(int(from_R.sum()), to_NB.shape[1])
        self._num_bytes += to_NB.nbytes
        return self._begin(from_NB, to_NB, from_R.tolist(), to_R.tolist())

    def copied(self, seconds: float) -> None:
        """Time went into rows on their way to or from the wire."""
        self._copy_s += seconds

    def waited(self, seconds: float) -> None:
        """Time went into waiting for others."""
        self._wait_s += seconds

    def take_times(self) -> CommTimes:
        """See `AllToAll`."""
        times = CommTimes(wait_s=self._wait_s, copy_s=self._copy_s, num_bytes=self._num_bytes)
        self._wait_s, self._copy_s, self._num_bytes = 0.0, 0.0, 0
        return times

    def lost(self, error: Exception) -> RankLostError:
        """What to raise where the network fails."""
        what = str(error).strip().partition("\n")[0]
        return RankLostError(f"rank {self.rank} of {self.num_ranks} lost others on the network ({what})")

    def wait(self, work: Work) -> None:
        """Raises RankLostError."""
        try:
            work.wait(timedelta(seconds=self._limit_s))
        except NETWORK_ERRORS as error:
            raise self.lost(error) from None

    def _begin(self, output: Tensor, source: Tensor, from_sizes: list[int], to_sizes: list[int]) -> "Pending":
        try:
            work: Work = self._group.alltoall_base(  # type: ignore[union-attr]  # torch's stub forgets gloo's
                output, source, from_sizes, to_sizes
            )
        except NETWORK_ERRORS as error:
            raise self.lost(error) from None
        return Pending(self, work, output, source)


class Pending:
    """On its way. Keeps what is sent until it has gone."""

    def __init__(self, exchange: Exchange, work: Work, output: Tensor, source: Tensor) -> None:
        self._exchange, self._work, self._output, self._source = exchange, work, output, source

    def finish(self) -> Tensor:
        """What came. Raises RankLostError."""
        self._exchange.wait(self._work)
        return self._output
