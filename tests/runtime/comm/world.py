"""Ranks in processes of their own, which do what they are told and say what came of it."""

import multiprocessing
import os
import time
from contextlib import suppress

import torch

from rackscale.core import RankLostError
from rackscale.runtime.comm.gloo import GlooAllToAll
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.comm.hierarchical import HierarchicalAllToAll
from rackscale.runtime.comm.shared_memory import SharedAllToAll
from rackscale.runtime.network import Network

JOB_LIMIT_S = 20.0
MEET_LIMIT_S = 10.0


class World:
    """`num_ranks` forked processes, with a heap that all have mapped and a process group that all are in.

    Every wait has a limit; whoever breaks it ends the test, and all processes end with the world.
    """

    def __init__(self, num_ranks, segment_bytes):
        self.num_ranks = num_ranks
        self.heap = Heap(num_ranks, segment_bytes)
        context = multiprocessing.get_context("fork")
        self._pipes, self._processes = [], []
        for rank in range(num_ranks):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, rank, self.heap), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join(JOB_LIMIT_S)
            pipe.close()

    def connect(self, limit_s=MEET_LIMIT_S):
        """Give the ranks their process group."""
        self._tell(0, connect, None, self.num_ranks, limit_s)
        address = self._answer(0)
        others = range(1, self.num_ranks)
        for rank in others:
            self._tell(rank, connect, address, self.num_ranks, limit_s)
        for rank in others:
            self._answer(rank)
        self.run(meet)

    def run(self, job, *common, each=None):
        """job(here, *common, own): own is that of `each` for the rank. Gives what all of them give."""
        for rank in range(self.num_ranks):
            self._tell(rank, job, *common, *(() if each is None else (each[rank],)))
        return [self._answer(rank) for rank in range(self.num_ranks)]

    def send_signal(self, rank, number):
        os.kill(self._processes[rank].pid, number)

    def clear(self, num_bytes):
        """The heap as it was at first. Only between jobs."""
        for segment in self.heap.segments:
            segment[:num_bytes] = bytes(num_bytes)

    def _tell(self, rank, job, *args):
        self._pipes[rank].send((job, args))

    def _answer(self, rank):
        assert self._pipes[rank].poll(JOB_LIMIT_S), f"rank {rank} hangs"
        answer = self._pipes[rank].recv()
        if isinstance(answer, Exception) and not isinstance(answer, RankLostError):
            raise answer
        return answer


class Here:
    """What a rank has."""

    def __init__(self, rank, heap):
        self.rank, self.heap, self.network, self.group = rank, heap, None, None


def serve(pipe, rank, heap):
    """Do jobs until the world is gone."""
    torch.set_num_threads(1)
    here = Here(rank, heap)
    with suppress(EOFError, OSError):
        while True:
            job, args = pipe.recv()
            try:
                answer = job(here, *args)
            except Exception as error:  # noqa: BLE001 (the test sees it)
                answer = error
            pipe.send(answer)


def connect(here, address, num_ranks, limit_s):
    here.network = Network("127.0.0.1")
    here.group = (address or here.network.address, num_ranks, limit_s)
    return here.network.address


def meet(here):
    address, num_ranks, limit_s = here.group
    store = here.network.store(address, limit_s)
    here.group = here.network.group(store, "test", here.rank, num_ranks, limit_s)


def make_end(here, kind, hosts, sizes, *, capacity, limit_s=JOB_LIMIT_S / 2):
    """kind: of the all-to-all. hosts: of the hierarchical one. sizes: hidden, top_k, wire."""
    if kind == "gloo":
        return GlooAllToAll(here.group, **sizes, limit_s=limit_s)
    limits = {"capacity": capacity, "spin_s": 0.0, "limit_s": limit_s}
    if kind == "shared":
        return SharedAllToAll(here.rank, here.heap.addresses, **sizes, **limits)
    addresses = here.heap.addresses
    mine = next(ranks for ranks in hosts if here.rank in ranks)
    return HierarchicalAllToAll(hosts, here.group, [addresses[rank] for rank in mine], **sizes, **limits)


def expert(number, hidden_H):
    """What stands for an expert."""
    return hidden_H * (number + 1) + number


def sums_of(hidden_NH, experts_NK, gates_NK):
    """The gated sums that a rank gives back."""
    sums_NH = torch.zeros_like(hidden_NH)
    for k in range(experts_NK.shape[1]):
        numbers_N1 = experts_NK[:, k, None]
        values_NH = gates_NK[:, k, None] * expert(numbers_N1, hidden_NH)
        sums_NH += torch.where(numbers_N1 < 0, 0.0, values_NH)
    return sums_NH


def rounds(here, kind, hosts, sizes, placed, capacity, batches):
    """All rounds of this rank, through one end: what it received and what came back, a round each.

    placed, batches: a round each; batches: hidden, gates, experts.
    """
    end = make_end(here, kind, hosts, sizes, capacity=capacity)
    results = []
    for layer, (copies, batch) in enumerate(zip(placed, batches, strict=True)):
        end.place(layer % 2, *copies)
        end.dispatch(layer % 2, *batch)
        received = end.receive()
        hidden_NH, gates_NK, experts_NK = received.hidden_NH, received.gates_NK, received.experts_NK
        assert received.count == len(hidden_NH)
        seen = [part.clone() for part in (hidden_NH, gates_NK, experts_NK)]
        out_TH = end.combine(sums_of(hidden_NH, experts_NK, gates_NK))
        results.append((*[part.numpy() for part in seen], out_TH.clone().numpy()))
    return results, end.take_times()


def rounds_until_lost(here, kind, hosts, sizes, limit_s):
    """Rounds without end. Gives how long the last one took, once another rank is lost."""
    end = make_end(here, kind, hosts, sizes, capacity=4, limit_s=limit_s)
    num_ranks = len(here.heap.segments)
    experts = torch.arange(num_ranks, dtype=torch.int32)
    end.place(0, experts[:, None].numpy(), torch.ones_like(experts).numpy())
    batch = torch.ones(4, sizes["hidden"]), torch.ones(4, 1), experts[torch.arange(4) % num_ranks, None]
    while True:
        start_s = time.monotonic()
        try:
            end.dispatch(0, *batch)
            end.combine(end.receive().hidden_NH)
        except RankLostError as error:
            return time.monotonic() - start_s, str(error)
