"""A model in one call, against the operations that it is made of."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_layers import CPU, EPS, VOCAB, decodes, filled_cache, random_model

from rackscale.runtime.kernels import choose
from rackscale.runtime.kernels.reference import Reference
from rackscale.runtime.kernels.weights import MoeWeights
from rackscale.runtime.model.feed_forward import Mlp, Moe
from rackscale.runtime.model.model import Layer
from rackscale.runtime.rope import Rope

pytest.importorskip("rackscale.runtime._native", reason="no compiler built it")


def ffn_of(weights):
    moe = isinstance(weights, MoeWeights)
    return Moe(weights, Reference(), None, 0) if moe else Mlp(weights, Reference())


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    hidden=st.sampled_from([8, 24, 50, 64]),
    num_layers=st.integers(1, 3),
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=9),
    block_size=st.sampled_from([1, 4, 16]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    num_threads=st.sampled_from([1, 2]),
)
def test_a_model_in_one_call(seed, hidden, num_layers, lengths, block_size, dtype, num_threads):
    torch.manual_seed(seed)
    rng = random.Random(seed)
    weights, model = random_model(rng, hidden, num_layers, dtype)
    rope = Rope(model.rope, 256, CPU)
    sampled = sorted(rng.sample(range(len(lengths)), rng.randint(0, len(lengths))))
    ours, theirs = (
        decodes(filled_cache(model, lengths, block_size, seed), lengths, sampled) for _ in range(2)
    )

    x, loads = weights.embed[theirs.token_ids].float(), []
    for layer_weights, layer_cache in zip(weights.layers, theirs.cache.layers, strict=True):
        layer = Layer(layer_weights, EPS, Reference(), ffn_of(layer_weights.ffn))
        x = layer(x, layer_cache, theirs, rope)
        if isinstance(layer.ffn, Moe):
            loads.append(layer.ffn.loads().tolist())
    normed = Reference().rms_norm(x[sampled], weights.final_norm, EPS)
    expected = Reference().linear(normed, weights.head)

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        logits, got_loads = choose("native").decoder(weights, rope, None)(ours, ours.cache)
    finally:
        torch.set_num_threads(before)
    assert got_loads.tolist() == loads
    assert logits.shape == expected.shape
    close(logits, expected)
    for ours_layer, theirs_layer in zip(ours.cache.layers, theirs.cache.layers, strict=True):
        for a, b in zip(ours_layer, theirs_layer, strict=True):
            close(a, b)


def close(a, b):
    assert torch.allclose(a, b, rtol=0, atol=5e-5 * max(1.0, b.abs().max().item() if b.numel() else 0))


def test_a_token_out_of_the_vocabulary_is_refused():
    weights, model = random_model(random.Random(0), 8, 1, torch.float32)
    decoder = choose("native").decoder(weights, Rope(model.rope, 256, CPU), None)
    batch = decodes(filled_cache(model, [3], 4, 0), [3], [0])
    with pytest.raises(IndexError, match="vocabulary"):
        decoder(replace(batch, tokens=np.array([VOCAB], dtype=np.int32)), batch.cache)


def test_bfloat16_activations_have_no_decoder():
    weights, model = random_model(random.Random(0), 8, 1, torch.float32)
    narrow = replace(weights, final_norm=weights.final_norm.bfloat16())
    assert choose("native").decoder(narrow, Rope(model.rope, 8, CPU), None) is None
