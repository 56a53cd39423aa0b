"""The native kernels against the reference, on random shapes, tails and extremes."""

import logging
import math
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.runtime.batch import Decodes
from rackscale.runtime.kernels import ExpertWeights, Linear, choose
from rackscale.runtime.kernels.reference import Reference
from rackscale.runtime.rope import Rope
from rackscale.specs import Activation, MoeSpec, RopeSpec, RouterSpec, Scoring

pytest.importorskip("rackscale.runtime._native", reason="no compiler built it")
native = choose("native")
reference = Reference()
seeds = st.integers(0, 2**31)
EXAMPLES = settings(max_examples=40)


def close(a, b, tolerance=2e-5):
    assert a.shape == b.shape
    scale = max(1.0, b.abs().max().item())
    assert (a - b).abs().max().item() <= tolerance * scale


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@EXAMPLES
@given(
    seed=seeds,
    tokens=st.integers(1, 40) | st.just(300),
    width=st.integers(1, 300),
    columns=st.integers(1, 200),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_linear_of_rows_inside_wider_ones(seed, tokens, width, columns, dtype):
    torch.manual_seed(seed)
    x, weight = torch.randn(tokens, width + 9)[:, 4 : 4 + width], torch.randn(width, columns).to(dtype)
    bias = torch.randn(columns) if seed % 2 else None
    layer = Linear(weight, bias)
    close(native.linear(x, layer), reference.linear(x, layer))


@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_linear_by_two_threads(tokens):
    torch.manual_seed(0)
    x, layer = torch.randn(tokens, 300), Linear(torch.randn(300, 700), torch.randn(700))
    with threads(2):
        close(native.linear(x, layer), reference.linear(x, layer))


@EXAMPLES
@given(seed=seeds, tokens=st.integers(1, 9), width=st.integers(1, 70))
def test_swiglu(seed, tokens, width):
    torch.manual_seed(seed)
    inner = torch.randn(tokens, 2 * width) * 10.0 ** (seed % 5 - 1)
    expected = reference.swiglu(inner)
    close(native.swiglu(inner), expected)


@EXAMPLES
@given(seed=seeds, tokens=st.integers(1, 9), width=st.integers(1, 70))
def test_rms_norm_of_rows_inside_wider_ones(seed, tokens, width):
    torch.manual_seed(seed)
    x = torch.randn(tokens, width + 13)[:, 5 : 5 + width] * 10.0 ** (seed % 7 - 3)
    weight = torch.randn(width)
    close(native.rms_norm(x, weight, 1e-6), reference.rms_norm(x, weight, 1e-6))


@EXAMPLES
@given(seed=seeds, tokens=st.integers(1, 9), heads=st.integers(1, 5), half=st.integers(1, 20))
def test_rotate_in_place(seed, tokens, heads, half):
    torch.manual_seed(seed)
    rope = Rope(RopeSpec(theta=10000.0, dim=2 * half), 50, torch.device("cpu"))
    wide = torch.randn(tokens, heads, 2 * half + 7)
    other = wide.clone()
    positions = torch.randint(0, 50, (tokens,))
    native.rotate(wide[..., 7:], rope, positions)
    reference.rotate(other[..., 7:], rope, positions)
    close(wide, other)


def moe(experts, width, *, clamped=False, top_k=2):
    return MoeSpec(
        router=RouterSpec(num_experts=experts, top_k=top_k, scoring=Scoring.SOFTMAX),
        width=width,
        activation=Activation.SWIGLU_CLAMPED if clamped else Activation.SWIGLU,
        expert_bias=clamped,
    )


@EXAMPLES
@given(
    seed=seeds,
    tokens=st.integers(1, 30) | st.just(700),
    hidden=st.integers(1, 90),
    width=st.integers(1, 40),
    experts=st.integers(2, 9),
    clamped=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    num_threads=st.sampled_from([1, 2]),
)
def test_experts(seed, tokens, hidden, width, experts, clamped, dtype, num_threads):
    torch.manual_seed(seed)
    weights = ExpertWeights(
        gate_up=torch.randn(experts, hidden, 2 * width).to(dtype),
        down=torch.randn(experts, width, hidden).to(dtype),
        gate_up_bias=torch.randn(experts, 2 * width) if clamped else None,
        down_bias=torch.randn(experts, hidden) if clamped else None,
        moe=moe(experts, width, clamped=clamped),
    )
    x = torch.randn(tokens, hidden)
    chosen = torch.stack([torch.randperm(experts)[:2] for _ in range(tokens)]).int()
    gates = torch.rand(tokens, 2)
    with threads(num_threads):
        close(native.experts(x, gates, chosen, weights), reference.experts(x, gates, chosen, weights), 5e-5)


@EXAMPLES
@given(
    seed=seeds,
    tokens=st.integers(1, 20),
    scoring=st.sampled_from(list(Scoring)),
    groups=st.sampled_from([1, 2, 4]),
    renormalise=st.booleans(),
    biased=st.booleans(),
)
def test_route(seed, tokens, scoring, groups, renormalise, biased):
    torch.manual_seed(seed)
    grouped = groups if scoring == Scoring.SIGMOID else 1
    spec = RouterSpec(
        num_experts=16,
        top_k=4,
        scoring=scoring,
        correction_bias=biased,
        num_groups=grouped,
        topk_groups=max(1, grouped // 2),
        renormalise=renormalise,
        scale=2.5,
    )
    logits = torch.randn(tokens, 16) * 3
    correction = torch.randn(16) * 0.1 if biased and scoring == Scoring.SIGMOID else None
    weights, experts = native.route(logits, correction, spec)
    expected_weights, expected = reference.route(logits, correction, spec)
    assert torch.equal(experts.sort(-1).values, expected.sort(-1).values)
    close(weights.gather(1, experts.argsort(-1)), expected_weights.gather(1, expected.argsort(-1)))


def decodes_over(generator, lengths, block_size, num_blocks):
    blocks_per_row = -(-max(lengths) // block_size) + 1
    table = generator.integers(0, num_blocks, (len(lengths) + 2, blocks_per_row)).astype(np.int32)
    rows = generator.permutation(len(lengths) + 2)[: len(lengths)].astype(np.int32)
    return Decodes(rows=rows, lengths=np.array(lengths, dtype=np.int32), table=table, block_size=block_size)


lengths = st.lists(st.integers(1, 70) | st.integers(120, 140), min_size=1, max_size=6)


@EXAMPLES
@given(
    seed=seeds,
    lengths=lengths,
    heads=st.sampled_from([1, 2, 4, 6, 8]),
    rank=st.sampled_from([5, 16, 40]),
    rope=st.sampled_from([4, 16]),
    block_size=st.sampled_from([1, 4, 16]),
    num_threads=st.sampled_from([1, 2]),
)
def test_mla_decode(seed, lengths, heads, rank, rope, block_size, num_threads):
    torch.manual_seed(seed)
    decodes = decodes_over(np.random.default_rng(seed), lengths, block_size, 20)
    cache = torch.randn(20 * block_size, rank + rope)
    query = torch.randn(len(lengths), heads, rank + rope) * 3
    with threads(num_threads):
        close(
            native.mla_decode(query, cache, decodes, rank, 0.3),
            reference.mla_decode(query, cache, decodes, rank, 0.3),
        )


@EXAMPLES
@given(
    seed=seeds,
    lengths=lengths,
    heads=st.sampled_from([(1, 1), (4, 4), (4, 1), (8, 2), (6, 2), (12, 3)]),
    dim=st.sampled_from([3, 16, 20]),
    block_size=st.sampled_from([1, 4, 16]),
    window=st.sampled_from([None, 1, 7, 64]),
    sinks=st.booleans(),
)
def test_gqa_decode(seed, lengths, heads, dim, block_size, window, sinks):
    torch.manual_seed(seed)
    num_heads, num_key_heads = heads
    decodes = decodes_over(np.random.default_rng(seed), lengths, block_size, 20)
    keys, values = torch.randn(2, 20 * block_size, num_key_heads, dim)
    query = torch.randn(len(lengths), num_heads, dim) * 3
    sink = torch.randn(num_heads) * 3 if sinks else None
    args = (query, keys, values, decodes, 0.4, window, sink)
    close(native.gqa_decode(*args), reference.gqa_decode(*args))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_attention_at_extremes(scale):
    torch.manual_seed(0)
    decodes = decodes_over(np.random.default_rng(0), [33, 1], 16, 20)
    cache, query = torch.randn(320, 40) * scale, torch.randn(2, 4, 40)
    result = native.mla_decode(query, cache, decodes, 24, 1.0)
    assert result.isfinite().all()
    close(result, reference.mla_decode(query, cache, decodes, 24, 1.0))


def test_experts_at_extremes():
    weights = ExpertWeights(
        gate_up=torch.full((2, 16, 64), 1e3),
        down=torch.zeros(2, 32, 16),
        gate_up_bias=None,
        down_bias=None,
        moe=moe(2, 32),
    )
    x = torch.cat((torch.zeros(1, 16), torch.full((1, 16), -1e3)))
    result = native.experts(x, torch.ones(2, 2), torch.tensor([[0, 1], [1, 0]]).int(), weights)
    assert torch.equal(result, torch.zeros(2, 16))


def test_bfloat16_activations_are_left_to_the_reference():
    x, weight = torch.randn(3, 8).bfloat16(), torch.randn(8, 4).bfloat16()
    assert torch.equal(native.linear(x, Linear(weight)), reference.linear(x, Linear(weight)))


def test_choose_by_name():
    assert choose("reference").name == "reference"
    assert choose("auto").name == "native"
    with pytest.raises(SpecError, match="auto, native or reference"):
        choose("cuda")


def test_auto_says_why_it_falls_back(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "rackscale.runtime.kernels.native", None)
    with caplog.at_level(logging.WARNING):
        assert choose("auto").name == "reference"
    assert "not built" in caplog.text
    with pytest.raises(SpecError, match="C\\+\\+ compiler"):
        choose("native")


def test_the_sink_takes_weight():
    decodes = decodes_over(np.random.default_rng(1), [5], 4, 4)
    ones = torch.ones(16, 1, 2)
    out = native.gqa_decode(torch.zeros(1, 1, 2), ones, ones, decodes, 1.0, None, torch.zeros(1))
    assert math.isclose(out[0, 0, 0].item(), 5 / 6, rel_tol=1e-5)
