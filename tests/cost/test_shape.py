"""Counts of one layer, against hand-made ones and the catalog's models."""

import dataclasses

import pytest
from cases import GQA, MLA, model

from rackscale.cost import Shape
from rackscale.specs.catalog import load_model
from rackscale.specs.counts import count, kv_bytes_per_token


def test_latent_attention_holds_its_compression_everywhere():
    shape = Shape.of(model(MLA))
    assert shape.replicated_weights == 64 * (32 + 8) + 64 * 48
    assert shape.split_weights == 48 * 8 * 24 + 32 * 8 * 32 + 8 * 16 * 64
    assert (shape.kv_elements, shape.kv_split) == (40, 1)


def test_queries_without_compression_are_split():
    shape = Shape.of(model(dataclasses.replace(MLA, q_lora_rank=None)))
    assert shape.replicated_weights == 64 * 40
    assert shape.split_weights == 64 * 8 * 24 + 32 * 8 * 32 + 8 * 16 * 64


def test_grouped_queries_split_everything():
    shape = Shape.of(model(GQA))
    assert shape.replicated_weights == 0
    assert shape.split_weights == 64 * 128 * 2 + 64 * 32 * 2
    assert (shape.kv_elements, shape.kv_split) == (64, 2)


def test_a_dense_model_has_one_expert_without_weights():
    shape = Shape.of(model(moe_layers=0))
    assert (shape.num_moe_layers, shape.expert_weights, shape.shared_weights) == (0, 0, 0)
    assert shape.dense_weights == 3 * 64 * 128


def test_windows_are_counted():
    assert set(Shape.of(model(windows=(16, None))).windows) == {(2, 16), (2, None)}


@pytest.mark.parametrize("name", ["deepseek-r1", "kimi-k2-thinking", "qwen3-235b-a22b", "olmoe-1b-7b"])
def test_weights_add_up_to_the_model(name):
    spec = load_model(name).spec
    shape, parts = Shape.of(spec), count(spec)
    dense = shape.num_layers - shape.num_moe_layers
    weights = (
        shape.num_layers * (shape.replicated_weights + shape.split_weights)
        + shape.num_moe_layers * (shape.experts * shape.expert_weights + shape.shared_weights)
        + dense * shape.dense_weights
        + 2 * shape.embedding_weights
    )
    assert weights == pytest.approx(parts.total, rel=1e-3)  # norms and routers are not streamed
    assert shape.kv_bytes_per_token(2.0) == kv_bytes_per_token(spec, 2)
