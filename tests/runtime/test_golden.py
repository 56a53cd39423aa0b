"""Every golden model: the logits of transformers, however a sequence is cut into steps."""

import pytest
import torch
from golden_ranks import BLOCK, KERNELS, MAX_LEN, NUM_BLOCKS, logits_by_pieces, make_rank

from rackscale.core import Request, Sampling
from rackscale.engine import build
from rackscale.runtime.inline import InlineDriver, OneRank
from rackscale.specs import DeploymentSpec, GroupSpec

TOLERANCE = 1e-4  # of the largest logit


def assert_close(logits, expected):
    assert (logits - expected).abs().max() <= TOLERANCE * expected.abs().max()


def run_pieces(rank, golden, pieces):
    """Logits [2, 64, V] of prompt and continuation, computed in pieces of the given lengths."""
    return logits_by_pieces(rank, torch.cat((golden["input_ids"], golden["greedy_ids"]), 1), pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([64], id="whole"),
        pytest.param([48] + [1] * 16, id="prefill-then-decode"),
        pytest.param([7] * 9 + [1], id="chunks-of-7"),
        pytest.param([16, 3, 29, 16], id="uneven-chunks"),
        pytest.param([1] * 64, id="token-by-token"),
    ],
)
def test_logits(rank, golden, pieces):
    logits = run_pieces(rank, golden, pieces)
    assert_close(logits, golden["logits"])
    assert torch.equal(logits[:, 47:63].argmax(-1), golden["greedy_ids"])


def driver_for(checkpoint, budget, kernels="auto"):
    group = GroupSpec(num_blocks=NUM_BLOCKS, max_running=4, max_batched_tokens=budget)
    deployment = DeploymentSpec(model="golden", groups=(group,), block_size=BLOCK, max_model_len=MAX_LEN)
    ticks = iter(range(10**6))
    return InlineDriver(
        build(deployment), OneRank(make_rank(checkpoint, kernels)), lambda: float(next(ticks))
    )


def greedy(golden, row, name, max_tokens=16):
    return Request(
        id=name,
        prompt=tuple(golden["input_ids"][row].tolist()),
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0.0),
    )


@pytest.mark.parametrize("budget", [4, 5, 13, 512])
@pytest.mark.parametrize("kernels", KERNELS)
def test_greedy_tokens_through_the_engine(checkpoint, golden, kernels, budget):
    driver = driver_for(checkpoint, budget, kernels)
    done = driver.run([greedy(golden, row, f"r{row}") for row in range(2)])
    for row in range(2):
        assert done[f"r{row}"].token_ids == golden["greedy_ids"][row].tolist()


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_prefix_hit_gives_the_same_tokens(checkpoint, golden, kernels):
    driver = driver_for(checkpoint, 512, kernels)
    first = driver.run([greedy(golden, 0, "first")])["first"]
    again = driver.run([greedy(golden, 0, "again")])["again"]
    assert first.finish.num_cached == 0
    assert again.finish.num_cached == 44  # of 48 prompt tokens all but the last block
    assert again.token_ids == first.token_ids == golden["greedy_ids"][0].tolist()


@pytest.mark.parametrize("kernels", KERNELS)
def test_sixteen_in_one_batch_give_what_each_gives_alone(checkpoint, golden, kernels):
    group = GroupSpec(num_blocks=256, max_running=16, max_batched_tokens=64)
    deployment = DeploymentSpec(model="golden", groups=(group,), block_size=BLOCK, max_model_len=MAX_LEN)

    def run(requests):
        rank = make_rank(checkpoint, kernels, max_running=16, num_blocks=256)
        return InlineDriver(build(deployment), OneRank(rank), lambda: 0.0).run(requests)

    ids = golden["input_ids"]
    requests = [
        Request(
            id=f"r{number}",
            prompt=tuple(ids[number % 2, number : number + 5 + 2 * number].tolist()),
            max_tokens=4 + number,
            sampling=Sampling(temperature=0.0)
            if number % 3 == 0
            else Sampling(temperature=0.7 + 0.1 * number, top_k=20, seed=number),
        )
        for number in range(16)
    ]
    together = run(requests)
    for request in requests:
        alone = run([request])
        assert together[request.id].token_ids == alone[request.id].token_ids
        assert len(alone[request.id].token_ids) == request.max_tokens


@pytest.mark.parametrize("kernels", KERNELS)
def test_bfloat16_runs(checkpoint, golden, kernels):
    """No comparison of logits: in bf16 experts flip, in the reference too."""
    rank = make_rank(checkpoint, kernels, activations="bf16")
    logits = run_pieces(rank, golden, [48] + [1] * 16)
    assert logits.isfinite().all()
    agreement = (logits.argmax(-1) == golden["logits"].argmax(-1)).float().mean()
    assert agreement > 0.5
