"""Plans made by hand: rows, seats, blocks and what comes back."""

import pytest
import torch
from golden_ranks import BLOCK, GOLDEN, KERNELS, make_rank

from rackscale.checkpoint import open_checkpoint
from rackscale.core import RankPlan, Request, Sampling, Seat, column


@pytest.fixture(scope="module")
def deepseek():
    return open_checkpoint(GOLDEN / "deepseek_v3", tokenizer_required=False)


@pytest.fixture(params=KERNELS)
def rank(request, deepseek):
    return make_rank(deepseek, request.param)


def request_of(prompt, **sampling):
    return Request(
        id="r", prompt=tuple(prompt), max_tokens=20, sampling=Sampling(**{"temperature": 0.0, **sampling})
    )


def plan(entries, seats=(), blocks=()):
    """entries: row, num_computed, num_new, samples. blocks: row, index, block."""
    rows, num_computed, num_new, samples = (column(part) for part in zip(*entries, strict=True))
    block_rows, block_indices, block_ids = (
        (column(part) for part in zip(*blocks, strict=True)) if blocks else (column() for _ in range(3))
    )
    return RankPlan(
        seats=tuple(seats),
        rows=rows,
        num_computed=num_computed,
        num_new=num_new,
        samples=samples,
        block_rows=block_rows,
        block_indices=block_indices,
        block_ids=block_ids,
    )


def own(row, first_block, count=8):
    return [(row, index, first_block + index) for index in range(count)]


def greedy_alone(deepseek, prompt, num_tokens):
    """By a fresh rank, one row, no tricks."""
    rank = make_rank(deepseek, "reference")
    seat = Seat(row=0, request=request_of(prompt))
    tokens = rank.step(plan([(0, 0, len(prompt), 1)], [seat], own(0, 0))).result.tokens.tolist()
    while len(tokens) < num_tokens:
        step = plan([(0, len(prompt) + len(tokens) - 1, 1, 1)])
        tokens += rank.step(step).result.tokens.tolist()
    return tokens


PROMPT = [5, 9, 200, 31, 7, 7, 120]
OTHER = [88, 3, 41]


def test_an_empty_plan_answers_nothing(rank):
    empty = column()
    nothing = RankPlan(
        rows=empty,
        num_computed=empty,
        num_new=empty,
        samples=empty,
        block_rows=empty,
        block_indices=empty,
        block_ids=empty,
    )
    answer = rank.step(nothing)
    assert answer.result.tokens.tolist() == answer.result.expert_loads.tolist() == []
    assert answer.logprobs == ()


def test_a_chunk_that_does_not_sample_gives_no_token(rank, deepseek):
    seat = Seat(row=1, request=request_of(PROMPT))
    first = rank.step(plan([(1, 0, 4, 0)], [seat], own(1, 10)))
    assert first.result.tokens.tolist() == []
    second = rank.step(plan([(1, 4, 3, 1)]))
    assert second.result.tokens.tolist() == greedy_alone(deepseek, PROMPT, 1)


def test_a_decode_and_a_prefill_in_one_step(rank, deepseek):
    alone, other = greedy_alone(deepseek, PROMPT, 2), greedy_alone(deepseek, OTHER, 1)
    rank.step(plan([(2, 0, 7, 1)], [Seat(row=2, request=request_of(PROMPT))], own(2, 20)))
    mixed = plan([(2, 7, 1, 1), (0, 0, 3, 1)], [Seat(row=0, request=request_of(OTHER))], own(0, 40))
    assert rank.step(mixed).result.tokens.tolist() == [alone[1], other[0]]


def test_only_the_decodes_that_sample_answer(rank, deepseek):
    alone = greedy_alone(deepseek, PROMPT, 2)
    seats = [Seat(row=row, request=request_of(PROMPT)) for row in range(2)]
    rank.step(plan([(0, 0, 7, 1), (1, 0, 7, 1)], seats, own(0, 0) + own(1, 30)))
    answer = rank.step(plan([(1, 7, 1, 0), (0, 7, 1, 1)]))
    assert answer.result.tokens.tolist() == [alone[1]]


def test_emitted_tokens_are_known_again(rank, deepseek):
    alone = greedy_alone(deepseek, PROMPT, 4)
    seat = Seat(row=3, request=request_of(PROMPT), emitted=tuple(alone[:3]))
    answer = rank.step(plan([(3, 0, 10, 1)], [seat], own(3, 5)))
    assert answer.result.tokens.tolist() == alone[3:]


def test_a_row_and_its_blocks_serve_the_next_sequence(rank, deepseek):
    rank.step(plan([(0, 0, 7, 1)], [Seat(row=0, request=request_of(PROMPT))], own(0, 0)))
    again = rank.step(plan([(0, 0, 3, 1)], [Seat(row=0, request=request_of(OTHER))]))
    assert again.result.tokens.tolist() == greedy_alone(deepseek, OTHER, 1)


def test_rows_that_share_blocks_of_a_prefix(rank, deepseek):
    """The second row computes only what is behind the first block."""
    rank.step(plan([(0, 0, 7, 1)], [Seat(row=0, request=request_of(PROMPT))], own(0, 0)))
    shared = [(1, 0, 0), *[(1, index, 30 + index) for index in range(1, 8)]]
    seat = Seat(row=1, request=request_of(PROMPT))
    answer = rank.step(plan([(1, BLOCK, 3, 1)], [seat], shared))
    assert answer.result.tokens.tolist() == greedy_alone(deepseek, PROMPT, 1)


def test_expert_loads_count_every_token_in_every_layer(rank, deepseek):
    spec = deepseek.spec
    moes = sum(layer.moe for layer in spec.layers)
    router = spec.moe.router
    seats = [Seat(row=0, request=request_of(PROMPT))]
    for entries, num_tokens in (([(0, 0, 7, 1)], 7), ([(0, 7, 1, 1)], 1)):
        loads = rank.step(plan(entries, seats, own(0, 0))).result.expert_loads
        by_layer = loads.reshape(moes, router.num_experts)
        assert by_layer.sum(1).tolist() == [num_tokens * router.top_k] * moes
        assert by_layer.max() <= num_tokens


def test_logprobs_name_their_sample(rank):
    seats = [Seat(row=0, request=request_of(PROMPT)), Seat(row=1, request=request_of(OTHER, num_logprobs=2))]
    answer = rank.step(plan([(0, 0, 7, 1), (1, 0, 3, 1)], seats, own(0, 0) + own(1, 30)))
    (entry,) = answer.logprobs
    assert entry.sample == 1
    assert entry.top[0] == (answer.result.tokens[1], entry.logprob)
    assert len(entry.top) == 2


def test_a_model_without_experts_reports_no_loads(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    rank = make_rank(open_checkpoint(tmp_path, tokenizer_required=False))
    seats = [Seat(row=0, request=request_of(OTHER[1:]))]
    for entries in ([(0, 0, 2, 1)], [(0, 2, 1, 1)]):
        result = rank.step(plan(entries, seats, own(0, 0))).result
        assert len(result.tokens) == 1
        assert result.expert_loads.tolist() == []
