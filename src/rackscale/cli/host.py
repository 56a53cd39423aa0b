"""`rackscale host`: the ranks that this machine has in a server that runs on another one."""

import gc
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rackscale.core import SpecError

MAX_PORT = 65535


class _Terminated(BaseException):
    """SIGTERM came."""


def host(
    model: Annotated[Path, typer.Argument(help="The model's folder on this machine.")],
    *,
    join: Annotated[str, typer.Option(metavar="HOST:PORT", help="What `serve` was told to --listen on.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of its own in the rack. Default: the machine's.")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(metavar="N", help="How many this machine may have. Default: any.", min=1)
    ] = None,
    wait_s: Annotated[
        float, typer.Option(metavar="X", help="Seconds to look for a server that is not there.", min=0)
    ] = 60.0,
) -> None:
    """Join a server with this machine's ranks, and join the next one there when it is gone.

    Example: RACKSCALE_TOKEN=... rackscale host models/austen-moe --join 10.0.0.1:7000
    """
    from rackscale.runtime.rank_host import TOKEN_VARIABLE, HostOptions, run_host  # noqa: PLC0415 (--help is fast)

    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise SpecError(f"{TOKEN_VARIABLE} is not set", hint="give this host the one that the server has")
    _check_address(join)
    if not (model / "config.json").is_file():
        raise SpecError(f"{model} has no config.json", hint="give a model's folder")
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("rackscale").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    options = HostOptions(
        address=join,
        name=name or socket.gethostname(),
        token=token,
        path=model.resolve(),
        num_ranks=ranks,
        wait_s=wait_s,
    )
    try:
        with suppress(_Terminated):
            run_host(options, once=False)
    finally:
        gc.unfreeze()  # what is loaded can go, in the order that its owners want


def _check_address(join: str) -> None:
    name, _, port = join.rpartition(":")
    if not (name and port.isdecimal() and 0 < int(port) <= MAX_PORT):
        raise SpecError(f"--join {join}", hint="give HOST:PORT, as `rackscale serve --listen` has it")


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated
