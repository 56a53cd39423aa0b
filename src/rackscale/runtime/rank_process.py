"""A rank's process: `python -m rackscale.runtime.rank_process FD`, started by the engine's process.

It loads a model, then performs plans from the socket FD until that is closed. It ends with its parent in
any case: the kernel kills it when the parent is gone, however that went.
"""

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rackscale.core import RackscaleError, RankPlan, column, decode_msgpack
from rackscale.runtime.messages import (
    Answered,
    Failed,
    Loading,
    RankConfig,
    Ready,
    frame,
    read_frame,
)

if TYPE_CHECKING:
    from rackscale.runtime.rank import Rank

PR_SET_PDEATHSIG = 1
SMALL_MODEL_BYTES = 256 << 20


def main(fd: int) -> None:
    """Serve until the parent closes the socket."""
    _die_with_parent()
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # the parent decides when to end
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    connection = socket.socket(fileno=fd)
    with connection, connection.makefile("rb") as stream:
        body = read_frame(stream)
        if body is None:
            return
        try:
            rank, ready = _load(
                decode_msgpack(body, RankConfig),
                lambda done, total: connection.sendall(frame(Loading(done=done, total=total))),
            )
        except RackscaleError as error:
            connection.sendall(frame(Failed(what=error.what, hint=error.hint, exit_code=error.exit_code)))
            return
        except MemoryError:
            failed = Failed(what="the model does not fit into memory", hint="lower --kv-gib", exit_code=2)
            connection.sendall(frame(failed))
            return
        connection.sendall(frame(ready))
        while (body := read_frame(stream)) is not None:
            answer = rank.step(decode_msgpack(body, RankPlan))
            connection.sendall(frame(Answered(answer=answer)))


def _load(config: RankConfig, progress: Callable[[int, int], None]) -> tuple["Rank", Ready]:
    import torch  # noqa: PLC0415 (after the parent knows that this process lives)

    from rackscale.checkpoint import open_checkpoint  # noqa: PLC0415
    from rackscale.runtime.kernels import choose  # noqa: PLC0415
    from rackscale.runtime.local import DTYPES  # noqa: PLC0415
    from rackscale.runtime.rank import Rank  # noqa: PLC0415

    checkpoint = open_checkpoint(Path(config.path), tokenizer_required=config.tokenizer)
    torch.set_num_threads(threads_for(checkpoint.metadata.num_bytes))
    kernels = choose(config.kernels)
    rank = Rank(
        checkpoint,
        num_blocks=config.num_blocks,
        block_size=config.block_size,
        max_running=config.max_running,
        max_model_len=config.max_model_len,
        dtype=DTYPES[config.activations],
        kernels=kernels,
        progress=progress,
    )
    gc.freeze()  # what is loaded stays; collections need not look at it
    rank.step(warm_up_plan())
    return rank, Ready(kernels=kernels.name, num_threads=torch.get_num_threads())


def threads_for(weight_bytes: int) -> int:
    """How many threads compute. A small model's step is too short to be worth a second core, which the
    engine and the frontend then have for themselves."""
    cores = len(os.sched_getaffinity(0))
    return 1 if weight_bytes < SMALL_MODEL_BYTES else cores


def warm_up_plan() -> RankPlan:
    """A step over one token in block 0, before anybody owns it: proof that the model answers."""
    return RankPlan(
        rows=column([0]),
        num_computed=column([0]),
        num_new=column([1]),
        samples=column([0]),
        block_rows=column([0]),
        block_indices=column([0]),
        block_ids=column([0]),
    )


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (prctl(2))."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
