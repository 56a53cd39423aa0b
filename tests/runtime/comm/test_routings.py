"""The three all-to-alls against one process, over random routings."""

import pytest
import torch
from comm.oracle import MOST_TOKENS, batch, cases, crossings, expected, place
from comm.world import World, rounds
from golden_ranks import NATIVE_IS_BUILT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rackscale.runtime.comm.hierarchical import relayed_capacity
from rackscale.runtime.comm.shared_memory import domain_bytes
from rackscale.runtime.comm.wire import Wire
from rackscale.runtime.comm.wire_torch import row_bytes

pytestmark = pytest.mark.skipif(not NATIVE_IS_BUILT, reason="no compiler built it")

NUM_RANKS = [1, 2, 3, 4, 8]
HOSTS = [[[0], [1]], [[0, 1], [2]], [[0], [2, 3, 1]], [[0, 2], [1, 3]], [[0, 1, 2], [3, 4], [5, 6, 7]]]
quick = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def run(world, kind, hosts, case):
    """What all ranks say, after the heap was cleared as far as it is used."""
    sizes, placed, batches = case
    num_ranks, capacity = world.num_ranks, MOST_TOKENS
    most = max(relayed_capacity(hosts, host, capacity) for host in range(len(hosts))) if hosts else capacity
    world.clear(domain_bytes(num_ranks, sizes["hidden"], sizes["top_k"], most, Wire.FP32))
    own = [[batches_of_round[rank] for batches_of_round in batches] for rank in range(num_ranks)]
    return world.run(rounds, kind, hosts, sizes, placed, capacity, each=own)


def check(results, case):
    """Tokens and sums are the oracle's."""
    sizes, placed, batches = case
    for number, (copies, batches_of_round) in enumerate(zip(placed, batches, strict=True)):
        received, outs = expected(sizes, copies, batches_of_round)
        for rank, (rounds_of_rank, _) in enumerate(results):
            *seen, out_TH = map(torch.from_numpy, rounds_of_rank[number])
            for part, right in zip(seen, received[rank], strict=True):
                assert torch.equal(part, right)
            torch.testing.assert_close(
                out_TH, outs[rank], rtol=0 if sizes["wire"] != Wire.FP8 else 1e-6, atol=0
            )


@pytest.mark.parametrize("num_ranks", NUM_RANKS)
@pytest.mark.parametrize("kind", ["shared", "gloo"])
@quick
@given(data=st.data())
def test_ranks_do_what_one_process_does(worlds, kind, num_ranks, data):
    case = data.draw(cases(num_ranks))
    check(run(worlds(num_ranks), kind, None, case), case)


@pytest.mark.parametrize("hosts", HOSTS, ids=str)
@quick
@given(data=st.data())
def test_hosts_do_what_one_process_does(worlds, hosts, data):
    num_ranks = sum(map(len, hosts))
    case = data.draw(cases(num_ranks, [Wire.FP32]))
    sizes, placed, batches = case
    results = run(worlds(num_ranks), "hierarchical", hosts, case)
    for number, (copies, batches_of_round) in enumerate(zip(placed, batches, strict=True)):
        _, outs = expected(sizes, copies, batches_of_round)
        for rank, (rounds_of_rank, _) in enumerate(results):
            assert torch.equal(torch.from_numpy(rounds_of_rank[number][-1]), outs[rank])


@pytest.mark.parametrize("hidden", [4096, 4097])
def test_rounds_that_pass_by_the_caches(hidden):
    """Beyond 4 MiB of rows, which C++ stores otherwise."""
    count, draws = 300, torch.Generator().manual_seed(2)
    sizes = {"hidden": hidden, "top_k": 2, "wire": Wire.FP32}
    placed = [place(4, 2, 1, draws)]
    batches = [[batch(count, sizes, 4, draws=draws, skewed=False) for _ in range(2)]]
    with World(2, domain_bytes(2, hidden, 2, count)) as world:
        own = [[batches[0][rank]] for rank in range(2)]
        check(world.run(rounds, "shared", None, sizes, placed, count, each=own), (sizes, placed, batches))


def test_a_token_crosses_once_for_each_host(worlds):
    """Of ranks that are alone on their hosts, all bytes are the network's."""
    hosts, sizes = [[0], [1], [2], [3]], {"hidden": 64, "top_k": 4, "wire": Wire.FP32}
    case = sizes, *everywhere(4, sizes)
    results = run(worlds(4), "hierarchical", hosts, case)
    there_and_back = 2 * row_bytes(Wire.FP32, 64) + 8 * sizes["top_k"]
    num_bytes = sum(times.num_bytes for _, times in results)
    assert num_bytes == there_and_back * crossings(hosts, case[1][0], case[2][0])


@pytest.mark.parametrize("wire", [Wire.BF16, Wire.FP8])
def test_narrow_wires_between_hosts(worlds, wire):
    sizes = {"hidden": 131, "top_k": 4, "wire": wire}
    case = sizes, *everywhere(4, sizes)
    results = run(worlds(4), "hierarchical", [[0, 1], [2, 3]], case)
    _, outs = expected({**sizes, "wire": Wire.FP32}, case[1][0], case[2][0])
    tolerance = 2.0**-6 if wire == Wire.BF16 else 2.0**-2
    for (rounds_of_rank, _), right in zip(results, outs, strict=True):
        error = (torch.from_numpy(rounds_of_rank[0][-1]) - right).norm() / right.norm()
        assert 0 < error < tolerance


def everywhere(num_ranks, sizes):
    """One round in which each rank has an expert and tokens for all."""
    placed = [
        (torch.arange(num_ranks, dtype=torch.int32)[:, None].numpy(), torch.ones(num_ranks).int().numpy())
    ]
    draws = torch.Generator().manual_seed(1)
    experts_TK = torch.arange(num_ranks, dtype=torch.int32).expand(MOST_TOKENS, num_ranks)[
        :, : sizes["top_k"]
    ]
    hidden = [torch.randn(MOST_TOKENS, sizes["hidden"], generator=draws) for _ in range(num_ranks)]
    return placed, [
        [(hidden_TH, torch.ones(MOST_TOKENS, sizes["top_k"]), experts_TK) for hidden_TH in hidden]
    ]
