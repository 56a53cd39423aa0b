"""A rank's process, forked by its host with the model in memory: it performs plans until its engine is
gone."""

import gc
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from rackscale.core import RackscaleError, RankPlan, column
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.messages import (
    Answered,
    Failed,
    Fence,
    Meet,
    Perform,
    Place,
    Ready,
    ToRank,
    frame,
    read_frame,
    unframe,
)
from rackscale.runtime.rank import Rank

SMALL_MODEL_BYTES = 256 << 20

_LOG = logging.getLogger("rackscale.rank")


Made = tuple[Rank, AllToAll | None]


def run_rank(connection: socket.socket, make: Callable[[BinaryIO], Made]) -> None:
    """Be the rank that `make` makes, until the engine closes the connection. It may read `Meet` first."""
    with connection, connection.makefile("rb") as stream, suppress(ConnectionError):  # the engine is gone
        try:
            rank, ranks = make(stream)
            gc.freeze()  # what is loaded stays; collections need not look at it
            connection.sendall(frame(Ready()))
            serve(connection, stream, rank, ranks)
        except RackscaleError as error:
            _LOG.error("%s", error)
            failed = Failed(what=error.what, hint=error.hint, exit_code=error.exit_code)
            connection.sendall(frame(failed))


def serve(connection: socket.socket, stream: BinaryIO, rank: Rank, ranks: AllToAll | None) -> None:
    """Perform what comes, in order."""
    while (body := read_frame(stream)) is not None:
        match unframe(body, ToRank):
            case Perform(plan=plan, step=step, doors=doors):
                if rank.transfer is not None:
                    rank.transfer.know(step, doors)
                connection.sendall(frame(Answered(answer=rank.step(plan))))
            case Place() as place:
                assert ranks is not None, "experts are placed on ranks that share them"
                place_experts(ranks, place)
            case Fence(group=group, incarnation=incarnation, step=step):
                assert rank.transfer is not None, "KV that nobody takes needs no fence"
                rank.transfer.fence(group, incarnation, step)
            case Meet():
                raise AssertionError("ranks meet before they are ready")


def place_experts(ranks: AllToAll, place: Place) -> None:
    """Tell the all-to-all where the experts of each layer are."""
    counts_ME = place.counts.copy().reshape(-1, place.num_experts)  # torch wants to be able to write to them
    ranks_MEC = place.ranks.copy().reshape(len(counts_ME), place.num_experts, place.most)
    for layer, (ranks_EC, counts_E) in enumerate(zip(ranks_MEC, counts_ME, strict=True)):
        ranks.place(layer, ranks_EC, counts_E)


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


def threads_for(weight_bytes: int, num_ranks: int) -> int:
    """How many threads each of a host's ranks computes with. A small model's step is too short to be worth
    a second core, which the engine and the frontend then have for themselves."""
    cores = len(os.sched_getaffinity(0))
    return 1 if weight_bytes < SMALL_MODEL_BYTES else max(1, cores // num_ranks)
