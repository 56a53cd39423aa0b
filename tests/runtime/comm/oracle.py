"""One process that does for all ranks at once what they do by messages; and rounds to do."""

import numpy as np
import torch
from comm.world import sums_of
from hypothesis import strategies as st

from rackscale.runtime.comm.wire import Wire

MOST_TOKENS = 6


@st.composite
def cases(draw, num_ranks, wires=tuple(Wire)):
    """Sizes, and a few rounds of all ranks: hidden, gates and experts of each, and who has the experts."""
    top_k = draw(st.integers(1, 4))
    num_experts = draw(st.integers(max(num_ranks, top_k), 12))
    sizes = {
        "hidden": draw(st.sampled_from([1, 5, 128, 131])),
        "top_k": top_k,
        "wire": draw(st.sampled_from(wires)),
    }
    num_rounds = draw(st.integers(1, 3))
    draws = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    counts = st.lists(st.integers(0, MOST_TOKENS), min_size=num_ranks, max_size=num_ranks)
    placed, batches = [], []
    for _ in range(num_rounds):
        placed.append(place(num_experts, num_ranks, draw(st.integers(1, num_ranks)), draws))
        skewed = draw(st.booleans())
        batches.append([batch(count, sizes, num_experts, skewed, draws) for count in draw(counts)])
    return sizes, placed, batches


def place(num_experts, num_ranks, most, draws):
    """Up to `most` copies of each expert, on different ranks. What is not valid is nonsense."""
    order_ER = torch.rand(num_experts, num_ranks, generator=draws).argsort(1)
    counts_E = torch.randint(1, most + 1, (num_experts,), generator=draws)
    ranks_EC = order_ER[:, :most].clone()
    ranks_EC[torch.arange(most) >= counts_E[:, None]] = -1
    return np.ascontiguousarray(ranks_EC.int()), counts_E.int().numpy()


def batch(count, sizes, num_experts, skewed, draws):
    """Whole numbers and quarters, so that sums are exact in whatever order they are made. skewed: all tokens
    want the first expert first."""
    hidden_TH = torch.randint(-8, 9, (count, sizes["hidden"]), generator=draws).float()
    gates_TK = torch.randint(1, 5, (count, sizes["top_k"]), generator=draws) / 4
    scores_TE = torch.rand(count, num_experts, generator=draws)
    if skewed:
        scores_TE[:, 0] = -1.0
    return hidden_TH, gates_TK, scores_TE.argsort(1)[:, : sizes["top_k"]].int()


def targets(copies, rank, experts_TK):
    """Which rank each choice of `rank`'s tokens goes to."""
    ranks_EC, counts_E = copies
    return [
        [int(ranks_EC[e, (rank + token) % counts_E[e]]) for e in row]
        for token, row in enumerate(experts_TK.tolist())
    ]


def on_the_wire(wire, rows_NH):
    """What arrives where rows are sent."""
    if wire == Wire.FP32:
        return rows_NH
    if wire == Wire.BF16:
        return rows_NH.bfloat16().float()
    rows = []
    for row_H in rows_NH:
        for part in row_H.split(128):
            scale = (part.abs().max() / 448).clamp(min=2.0**-126)
            rows.append((part * (1 / scale)).to(torch.float8_e4m3fn).float() * scale)
    return torch.cat(rows).view_as(rows_NH) if rows else rows_NH


def expected(sizes, copies, batches):
    """What each rank receives (hidden, gates, experts), and the sums of its tokens."""
    num_ranks, wire = len(batches), sizes["wire"]
    outs = [torch.zeros_like(hidden_TH) for hidden_TH, _, _ in batches]
    received = []
    for rank in range(num_ranks):
        parts = [
            sent(rank, source, copies, batch, sizes["top_k"], wire) for source, batch in enumerate(batches)
        ]
        received.append([torch.cat([part[n] for part in parts]) for n in range(1, 4)])
        for source, (tokens, hidden_NH, gates_NK, experts_NK) in enumerate(parts):
            sums_NH = sums_of(hidden_NH, experts_NK, gates_NK)
            outs[source][tokens] += sums_NH if source == rank else on_the_wire(wire, sums_NH)
    return received, outs


def sent(rank, source, copies, batch, top_k, wire):
    """What of a source's batch `rank` gets: tokens, hidden, gates, experts."""
    hidden_TH, gates_TK, experts_TK = batch
    tokens, gates, experts = [], [], []
    for token, row in enumerate(targets(copies, source, experts_TK)):
        mine = [k for k, to in enumerate(row) if to == rank]
        if mine:
            rest = top_k - len(mine)
            tokens.append(token)
            gates.append(gates_TK[token, mine].tolist() + [0.0] * rest)
            experts.append(experts_TK[token, mine].tolist() + [-1] * rest)
    hidden_NH = hidden_TH[tokens]
    return (
        tokens,
        hidden_NH if source == rank else on_the_wire(wire, hidden_NH),
        torch.tensor(gates).view(-1, top_k),
        torch.tensor(experts, dtype=torch.int32).view(-1, top_k),
    )


def crossings(hosts, copies, batches):
    """How often a token goes to another host."""
    host_of = {rank: number for number, ranks in enumerate(hosts) for rank in ranks}
    total = 0
    for rank, (_, _, experts_TK) in enumerate(batches):
        for row in targets(copies, rank, experts_TK):
            total += len({host_of[to] for to in row} - {host_of[rank]})
    return total
