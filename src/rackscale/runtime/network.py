"""Process groups of gloo that come and go.

torch.distributed's own world is made once, by ranks that are all there, and ends when one of them does. Ranks
here die and are started again while others go on. So each has a store of its own, at an address that the
engine tells the others, and groups are made on these stores when they are needed. A group that failed once is
never used again: another one is made.

Nothing here is encrypted, and whoever reaches a store can write to it: the network between hosts is private.
"""

import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed import ProcessGroup, ProcessGroupGloo

T = TypeVar("T")

STORE_LIMIT_S = 30.0
NETWORK_ERRORS = (OSError, RuntimeError)  # what torch raises where the network fails, or time is up


class Network:
    """The end that a process has. host: its address, by which other hosts reach it.

    address: of its store, HOST:PORT.
    """

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family)
        port: int = listener.getsockname()[1]
        self._server = TCPStore(
            host,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=STORE_LIMIT_S),
            master_listen_fd=listener.detach(),
        )
        self._device = ProcessGroupGloo.create_device(hostname=host)
        self.address = f"{host}:{port}"

    def store(self, address: str, limit_s: float) -> TCPStore:
        """A connection to the store at an address, to be used by one thread.

        Raises one of NETWORK_ERRORS, at once where nobody listens there.
        """
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), limit_s).close()  # a store's client would try on and on
        limit = timedelta(seconds=limit_s)
        return TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=limit)

    def group(self, store: TCPStore, name: str, rank: int, size: int, limit_s: float) -> ProcessGroup:
        """Meet the others that give the same store and name. limit_s: of this, and of every wait there.

        Raises one of NETWORK_ERRORS.
        """
        options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # noqa: SLF001 (it has a device)
        options._devices = [self._device]  # noqa: SLF001 (no public way to it)
        options._timeout = timedelta(seconds=limit_s)  # noqa: SLF001 (the same)
        made = ProcessGroupGloo(PrefixStore(name, store), rank, size, options)
        return cast("ProcessGroup", made)  # the same calls


def within(limit_s: float, work: Callable[[], T]) -> T:
    """What `work` gives, if it does within the limit. Raises what it raises, and TimeoutError: who has
    accepted a store's connection and says no word is waited for by torch without end. The thread that does
    so is lost.
    """
    done: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except Exception as error:  # noqa: BLE001 (for who asked)
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = done.get(timeout=limit_s)
    except Empty:
        raise TimeoutError(f"nothing within {limit_s:g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # without an error there is one
