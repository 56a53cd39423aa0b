"""The symmetric heap: one segment of shared memory a rank, mapped by all ranks of a domain.

Segments have no name: they are made before ranks are forked, which inherit them, and are gone with the last
process that has them. Pages cost memory when they are written to.
"""

import ctypes
import mmap

from rackscale.core import CapacityError

MAP_NORESERVE = 0x4000  # mmap(2); the module does not name it


class Heap:
    """`num_ranks` segments of `num_bytes` zeros each.

    Raises CapacityError where the host does not give so much address space.
    """

    def __init__(self, num_ranks: int, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            self.segments = [mmap.mmap(-1, max(num_bytes, 1), flags) for _ in range(num_ranks)]
        except (OSError, ValueError, OverflowError) as error:
            raise CapacityError(
                f"{num_ranks} times {num_bytes / 2**20:.0f} MiB of shared memory cannot be had ({error})",
                hint="lower --max-batched-tokens or the number of ranks",
            ) from None

    @property
    def addresses(self) -> list[int]:
        """Where each segment begins, in this process and in those forked from it."""
        return [ctypes.addressof(ctypes.c_char.from_buffer(segment)) for segment in self.segments]
