"""The parent's end of a rank's process."""

import asyncio
import logging
import socket
import subprocess
import sys
from contextlib import suppress

from rackscale.core import RackscaleError, RankLostError, RankPlan
from rackscale.runtime.answer import RankAnswer
from rackscale.runtime.messages import (
    LENGTH,
    Answered,
    Failed,
    FromRank,
    Loading,
    RankConfig,
    Ready,
    frame,
    unframe,
)

STREAM_LIMIT_BYTES = 1 << 26
REAP_LIMIT_S = 2.0
PROGRESS_S = 1.0  # between two lines that say how loading goes

_LOG = logging.getLogger("rackscale.serve")


class RankLink:
    """One rank's process and the socket to it: first `ready`, then plans and answers in order.

    stderr: where the process writes its log, a descriptor; None: where this process does.
    """

    def __init__(self, stderr: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter, this module)
                [sys.executable, "-m", "rackscale.runtime.rank_process", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self._socket = ours
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self, config: RankConfig) -> Ready:
        """Configure the rank and wait until it has answered a step.

        Raises the rank's own error where it cannot start, RankLostError where it dies.
        """
        self._reader, self._writer = await asyncio.open_connection(
            sock=self._socket, limit=STREAM_LIMIT_BYTES
        )
        self._writer.write(frame(config))
        clock = asyncio.get_running_loop().time
        told_s = clock()
        while True:
            match await self._receive():
                case Ready() as ready:
                    return ready
                case Failed() as failed:
                    error = RackscaleError(failed.what, hint=failed.hint)
                    error.exit_code = failed.exit_code
                    raise error
                case Loading(done=done, total=total) if clock() - told_s > PROGRESS_S:
                    told_s = clock()
                    _LOG.info("loaded %d of %d layers", done, total)
                case Loading() | Answered():
                    pass

    def send(self, plan: RankPlan) -> None:
        """Give the rank a step; it performs them in order."""
        assert self._writer is not None, "plans are sent to a rank that is ready"
        self._writer.write(frame(plan))

    async def answer(self) -> RankAnswer:
        """The answer to the oldest plan. Raises RankLostError where the rank died instead."""
        message = await self._receive()
        assert isinstance(message, Answered), "a ready rank only answers plans"
        return message.answer

    async def _receive(self) -> FromRank:
        assert self._reader is not None, "the link is connected first"
        try:
            prefix = await self._reader.readexactly(LENGTH.size)
            body = await self._reader.readexactly(LENGTH.unpack(prefix)[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            with suppress(subprocess.TimeoutExpired):  # its socket closes a moment before it is gone
                await asyncio.to_thread(self._process.wait, REAP_LIMIT_S)
            code = self._process.poll()
            raise RankLostError(
                f"the rank's process {self.pid} died (exit code {code})",
                hint="its last words are above; start the server again",
            ) from None
        return unframe(body)

    def kill(self) -> None:
        """End the rank at once. `answer` raises RankLostError from then on."""
        self._process.kill()

    def close(self) -> None:
        """End the rank. It holds nothing that outlives it, and may be in the middle of loading."""
        if self._writer is not None:
            self._writer.close()
        self._socket.close()
        self._process.kill()
        self._process.wait()
