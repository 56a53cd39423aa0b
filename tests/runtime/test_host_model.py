"""What a host makes of the part that an engine gives it, and how ranks of several hosts meet."""

import socket
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
from golden_ranks import GOLDEN, NATIVE_IS_BUILT

from rackscale.core import GroupId, RackscaleError, RankId, RankLostError
from rackscale.runtime.host_model import HostModel
from rackscale.runtime.messages import Load, Meet, frame
from rackscale.runtime.transfer.choose import ChosenTransfer
from rackscale.runtime.transfer.shared_memory import SharedTransfer
from rackscale.specs import DeploymentSpec, GroupSpec

GROUP = GroupId(0)
LIMIT_S = 3.0


def load_of(hosts, **fields):
    """Of the first host. hosts: how many ranks each of them has."""
    ends = np.cumsum(hosts).tolist()
    ranks_H = [
        tuple((GROUP, RankId(rank)) for rank in range(end - count, end))
        for count, end in zip(hosts, ends, strict=True)
    ]
    group = GroupSpec(num_ranks=ends[-1], num_blocks=8, max_running=2, max_batched_tokens=16)
    whole = {
        "path": str(GOLDEN / "mixtral"),
        "deployment": DeploymentSpec(model="m", groups=(group,), block_size=8, max_model_len=32),
        "ranks": ranks_H[0],
        "activations": "auto",
        "weights": "auto",
        "kernels": "reference",
        "tokenizer": False,
        "wire": "fp32",
        "router_skew": 0.0,
        "hang_limit_s": LIMIT_S,
        "hosts": tuple((str(number), ranks) for number, ranks in enumerate(ranks_H))
        if len(hosts) > 1
        else (),
    }
    return Load(**{**whole, **fields})


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def model_of(hosts, host=0):
    load = load_of(hosts)
    if host:
        load = load_of(hosts, ranks=load.hosts[host][1])
    return HostModel(load, None, lambda _done, _total: None)


def opened(model, rank):
    """The address at which others reach it. The engine's place is taken by a listener that says nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as engine,
        socket.create_connection(engine.getsockname()) as connection,
    ):
        return model.open_network(connection, GROUP, RankId(rank), incarnation=1)


def test_one_host_needs_no_network():
    model = model_of([1])
    assert opened(model, 0) == ""
    rank, ranks = model.make_rank(GROUP, RankId(0))
    assert isinstance(rank.transfer, SharedTransfer)
    assert ranks is None


def test_two_ranks_of_two_hosts_meet():
    models = [model_of([1, 1]), model_of([1, 1], host=1)]
    meet = Meet(addresses=tuple(opened(model, rank) for rank, model in enumerate(models)))
    for model in models:
        model.renew(GROUP)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda rank: models[rank].make_rank(GROUP, RankId(rank), meet), (0, 1)))
    assert [ranks.num_ranks for _, ranks in made] == [2, 2]
    assert all(isinstance(rank.transfer, ChosenTransfer) for rank, _ in made)


@pytest.mark.skipif(not NATIVE_IS_BUILT, reason="ranks of a host share memory through the native part")
def test_what_ranks_of_a_host_share_has_room_for_what_they_relay():
    alone, beside = model_of([2]), model_of([2, 1])
    for model in (alone, beside):
        model.renew(GROUP)
    assert len(beside._heaps[GROUP].segments) == 2
    assert beside._heaps[GROUP].num_bytes > alone._heaps[GROUP].num_bytes


def test_nobody_comes():
    model = model_of([1, 1])
    meet = Meet(addresses=(opened(model, 0), "127.0.0.1:1"))
    with pytest.raises(RankLostError, match="rank 0 of group 0 does not meet the others"):
        model.make_rank(GROUP, RankId(0), meet)


def test_the_engine_says_where_the_others_are():
    model, meet = model_of([1, 1]), Meet(addresses=("a:1", "b:2"))
    assert model._meet(BytesIO(frame(meet)), GROUP) == meet
    with pytest.raises(ConnectionError):
        model._meet(BytesIO(), GROUP)


def test_a_host_that_does_not_know_where_the_model_is():
    with pytest.raises(RackscaleError, match="does not know where the model is"):
        HostModel(load_of([1], path=None), None, lambda _done, _total: None)


def test_what_fits():
    model = model_of([1])
    assert model.fits(load_of([1]))
    assert not model.fits(load_of([1, 1]))
