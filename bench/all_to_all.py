"""All-to-all through shared memory against gloo's all_to_all_single: the same bytes, one run.

Ranks are processes of this machine. A round is what a layer with experts asks for: dispatch, receive,
combine, with no experts in between. gloo moves the bytes that we move, in the two calls that it takes, and is
told beforehand how many go where; it neither packs tokens nor adds up what comes back, and we do both. The
limit is a copy of these bytes, once each, from a rank's own memory into shared memory, by all ranks at once.
Rounds alternate between the three. Time is that of the slowest rank; buffers have been written to before it
counts. Where ranks outnumber cores, they take turns, and all three are the slower for it.

    python bench/all_to_all.py [--quick] [--rounds 7] [--out FILE]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from machine import machine, quartiles
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rackscale.core import column
from rackscale.runtime.comm import Heap, Wire
from rackscale.runtime.comm.routes import Copies, routes
from rackscale.runtime.comm.shared_memory import SPIN_S, SharedAllToAll, domain_bytes
from rackscale.runtime.comm.wire_torch import row_bytes
from rackscale.runtime.network import Network

RESULTS = Path(__file__).parent / "results" / "all_to_all.json"
NUM_EXPERTS = 64
LIMIT_S = 60.0
HEAD_BYTES = 4096  # of a segment: what has to be zero at first
CPU = torch.device("cpu")
LEAST_S = 0.05  # that a measurement of many small rounds takes
TARGETS = {8: 5.0, 512: 3.0}  # by tokens: how much faster than gloo, at 2 ranks, hidden 7,168, top 8, fp32


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """tokens: of each rank."""

    ranks: int
    tokens: int
    hidden: int = 7168
    top_k: int = 8
    wire: Wire = Wire.FP32

    @property
    def segment_bytes(self) -> int:
        return domain_bytes(self.ranks, self.hidden, self.top_k, self.tokens, self.wire)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Medians in microseconds, and quartiles (lower, median, upper). num_bytes: sent by a rank in a round.
    ratio: of gloo's time to ours. gb_per_s: by a rank. share: of the copy's time in ours."""

    case: Case
    num_bytes: int
    ours_us: float
    gloo_us: float
    copy_us: float
    ratio: float
    gb_per_s: float
    share: float
    ours_quartiles_us: list[float]
    gloo_quartiles_us: list[float]
    copy_quartiles_us: list[float]


def cases() -> list[Case]:
    """A part of the product of all sizes: lines through the points that matter."""
    chosen = [Case(ranks=2, tokens=tokens) for tokens in (1, 8, 64, 512, 4096)]
    chosen += [
        Case(ranks=2, tokens=tokens, hidden=hidden)
        for hidden in (128, 2048)
        for tokens in (1, 8, 64, 512, 4096)
    ]
    chosen += [Case(ranks=2, tokens=tokens, top_k=1) for tokens in (8, 512)]
    chosen += [
        Case(ranks=2, tokens=tokens, wire=wire) for wire in (Wire.BF16, Wire.FP8) for tokens in (8, 512)
    ]
    for ranks in (4, 8):
        chosen += [Case(ranks=ranks, tokens=tokens) for tokens in (1, 8, 64, 512)]
        chosen += [Case(ranks=ranks, tokens=tokens, hidden=128) for tokens in (8, 512, 4096)]
        chosen += [Case(ranks=ranks, tokens=tokens, hidden=2048) for tokens in (8, 512)]
        chosen += [Case(ranks=ranks, tokens=tokens, top_k=1) for tokens in (8, 512)]
    return chosen


class RankEnd:
    """What a rank has: the heap, and later a process group."""

    def __init__(self, rank: int, heap: Heap) -> None:
        self.rank, self.heap = rank, heap
        self.network = Network("127.0.0.1")
        self.group: Any = None  # torch has no types for it

    def address(self) -> str:
        return self.network.address

    def meet(self, address: str, num_ranks: int) -> None:
        store = self.network.store(address, LIMIT_S)
        self.group = self.network.group(store, "bench", self.rank, num_ranks, LIMIT_S)

    def measure(self, case: Case, rounds: int) -> tuple[int, list[list[float]]]:
        """Bytes of a round, and seconds of each: by way (ours, gloo, copy), `rounds` each."""
        self.heap.segments[self.rank][:HEAD_BYTES] = bytes(HEAD_BYTES)
        self._barrier()
        load = Load(case, self.rank)
        ways = [self._ours(case, load), self._gloo(case, load), self._copy(case, load)]
        repeats = [self._repeats(way) for way in ways]
        times: list[list[float]] = [[] for _ in ways]
        for _ in range(rounds):
            for way, count, seconds in zip(ways, repeats, times, strict=True):
                seconds.append(self._time(way, count))
        return load.num_bytes, times

    def _ours(self, case: Case, load: "Load") -> Callable[[], None]:
        fits = case.ranks <= len(os.sched_getaffinity(0))
        end = SharedAllToAll(
            self.rank,
            self.heap.addresses,
            hidden=case.hidden,
            top_k=case.top_k,
            capacity=case.tokens,
            wire=case.wire,
            spin_s=SPIN_S if fits else 0.0,
            limit_s=LIMIT_S,
        )
        end.place(0, load.ranks_E1, column([1] * NUM_EXPERTS))
        num_received = int(load.from_R.sum()) + load.num_own
        sums_NH = torch.randn(num_received, case.hidden)

        def once() -> None:
            end.dispatch(0, load.hidden_TH, load.gates_TK, load.experts_TK)
            received = end.receive()
            assert received.count == num_received, "the routings differ"
            end.combine(sums_NH)

        return once

    def _gloo(self, case: Case, load: "Load") -> Callable[[], None]:
        packet = row_bytes(case.wire, case.hidden) + 8 * case.top_k
        legs = []
        for width, to_R, from_R in (
            (packet, load.to_R, load.from_R),
            (row_bytes(case.wire, case.hidden), load.from_R, load.to_R),
        ):
            sizes = (to_R * width).tolist(), (from_R * width).tolist()
            there, here = (torch.ones(sum(part), dtype=torch.uint8) for part in sizes)
            legs.append((here, there, sizes[1], sizes[0]))

        def once() -> None:
            for leg in legs:
                self.group.alltoall_base(*leg).wait()

        return once

    def _copy(self, case: Case, load: "Load") -> Callable[[], None]:
        """Into what is not used by others in these rounds: the memory behind the heads, of the next rank."""
        from_B = torch.ones(load.num_bytes, dtype=torch.uint8)
        segment = self.heap.segments[(self.rank + 1) % case.ranks]
        half = -(-load.num_bytes // 2)
        to_B = torch.frombuffer(segment, dtype=torch.uint8, offset=HEAD_BYTES, count=load.num_bytes)

        def once() -> None:
            to_B[:half].copy_(from_B[:half])
            to_B[half:].copy_(from_B[half:])

        return once

    def _repeats(self, way: Callable[[], None]) -> int:
        """Warm up; and how often to do it, the same on all ranks."""
        self._time(way, 2)
        enough = torch.tensor([max(1, int(LEAST_S / self._time(way, 2)))])
        self.group.broadcast(enough, 0).wait()
        return int(enough)

    def _time(self, way: Callable[[], None], count: int) -> float:
        self._barrier()
        start_s = time.perf_counter()
        for _ in range(count):
            way()
        return (time.perf_counter() - start_s) / count

    def _barrier(self) -> None:
        self.group.barrier().wait()


class Load:
    """The tokens of a rank, the same for all ways. to_R, from_R: how many rows go to and come from each other
    rank."""

    def __init__(self, case: Case, rank: int) -> None:
        self.ranks_E1 = column(e * case.ranks // NUM_EXPERTS for e in range(NUM_EXPERTS))[:, None]
        copies = Copies(self.ranks_E1, column([1] * NUM_EXPERTS), case.ranks, CPU)
        counts_RR = torch.stack(
            [self._counts(case, copies, experts(case, source)) for source in range(case.ranks)]
        )
        self.num_own = int(counts_RR[rank, rank])
        counts_RR.fill_diagonal_(0)
        self.to_R, self.from_R = counts_RR[rank], counts_RR[:, rank]
        self.hidden_TH = torch.randn(case.tokens, case.hidden)
        self.gates_TK = torch.rand(case.tokens, case.top_k)
        self.experts_TK = experts(case, rank)
        row = row_bytes(case.wire, case.hidden)
        self.num_bytes = int(self.to_R.sum()) * (row + 8 * case.top_k) + int(self.from_R.sum()) * row

    def _counts(self, case: Case, copies: Copies, experts_TK: Tensor) -> Tensor:
        gates_TK = torch.ones(experts_TK.shape)
        found = routes(copies.targets(experts_TK.long(), 0), experts_TK, gates_TK, case.ranks)
        return torch.bincount(found.ranks_N, minlength=case.ranks)


def experts(case: Case, rank: int) -> Tensor:
    """What a rank's tokens ask for, drawn evenly."""
    draws = torch.Generator().manual_seed(rank)
    scores_TE = torch.rand(case.tokens, NUM_EXPERTS, generator=draws)
    return scores_TE.argsort(1)[:, : case.top_k].int()


def serve(pipe: Connection, rank: int, heap: Heap) -> None:
    """In a child: do what is asked for."""
    torch.set_num_threads(1)
    end = RankEnd(rank, heap)
    while True:
        name, args = pipe.recv()
        pipe.send(getattr(end, name)(*args))


@contextmanager
def ranks(num_ranks: int, segment_bytes: int) -> Iterator[Callable[..., list[Any]]]:
    """Processes over a heap. Gives what asks all of them at once."""
    heap = Heap(num_ranks, segment_bytes)
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(num_ranks):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, rank, heap), daemon=True)
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    try:
        yield partial(ask, pipes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def ask(pipes: list[Connection], name: str, *args: object) -> list[Any]:
    for pipe in pipes:
        pipe.send((name, args))
    return [answer(pipe) for pipe in pipes]


def answer(pipe: Connection) -> Any:
    if not pipe.poll(LIMIT_S):
        raise TimeoutError("a rank hangs")
    return pipe.recv()


def line_of(case: Case, answers: list[tuple[int, list[list[float]]]]) -> Line:
    num_bytes = sum(answer[0] for answer in answers) / len(answers)
    by_way = [
        [1e6 * max(by_rank) for by_rank in zip(*(answer[1][way] for answer in answers), strict=True)]
        for way in range(3)
    ]
    ours, gloo, copy = (statistics.median(us) for us in by_way)
    quarters = [[round(us, 1) for us in quartiles(way)] for way in by_way]
    return Line(
        case=case,
        num_bytes=int(num_bytes),
        ours_us=round(ours, 1),
        gloo_us=round(gloo, 1),
        copy_us=round(copy, 1),
        ratio=round(gloo / ours, 2),
        gb_per_s=round(num_bytes / ours / 1e3, 2),
        share=round(copy / ours, 3),
        ours_quartiles_us=quarters[0],
        gloo_quartiles_us=quarters[1],
        copy_quartiles_us=quarters[2],
    )


def measure(chosen: list[Case], rounds: int) -> Iterator[Line]:
    for num_ranks in sorted({case.ranks for case in chosen}):
        mine = [case for case in chosen if case.ranks == num_ranks]
        with ranks(num_ranks, max(case.segment_bytes for case in mine)) as ask_all:
            address = ask_all("address")[0]
            ask_all("meet", address, num_ranks)
            for case in mine:
                yield line_of(case, ask_all("measure", case, rounds))


def missed(lines: list[Line]) -> list[str]:
    """The targets that do not hold."""
    by_case = {line.case: line.ratio for line in lines}
    return [
        f"{tokens} tokens: {by_case[Case(ranks=2, tokens=tokens)]}, and {ratio} is due"
        for tokens, ratio in TARGETS.items()
        if by_case[Case(ranks=2, tokens=tokens)] < ratio
    ]


def print_table(lines: list[Line]) -> None:
    columns = (
        "ranks",
        "tokens",
        "hidden",
        "top k",
        "wire",
        "MB",
        "us",
        "gloo us",
        "ratio",
        "GB/s",
        "of copy",
    )
    table = Table(*columns)
    for line in lines:
        case = line.case
        sizes = (case.ranks, case.tokens, case.hidden, case.top_k, case.wire, f"{line.num_bytes / 1e6:.3f}")
        times = (f"{line.ours_us:.0f}", f"{line.gloo_us:.0f}", f"{line.ratio:.1f}", f"{line.gb_per_s:.2f}")
        table.add_row(*map(str, sizes), *times, f"{line.share:.0%}")
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="only the sizes that have a target; writes nothing"
    )
    parser.add_argument("--rounds", type=int, default=7, help="that count, of each of the three")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [Case(ranks=2, tokens=tokens) for tokens in TARGETS] if options.quick else cases()
    loads = [os.getloadavg()]  # others' work shows: two busy ranks alone make 2
    lines = list(measure(chosen, options.rounds))
    loads.append(os.getloadavg())
    print_table(lines)
    if not options.quick:
        result = {
            "machine": machine(),
            "rounds": options.rounds,
            "load_before_and_after": loads,
            "lines": [asdict(line) for line in lines],
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if words := missed(lines):
        raise SystemExit("; ".join(words))


if __name__ == "__main__":
    main()
