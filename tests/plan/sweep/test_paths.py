"""Each path changes what it says, and nothing else."""

from dataclasses import replace

import pytest
from planning import question

from rackscale.core import SpecError
from rackscale.plan.sweep import AXES
from rackscale.specs.counts import count

ASKED = question("deepseek-v3")


def spec(path, value):
    return AXES[path].at(ASKED, value).model.spec


def test_system_fields():
    assert AXES["system.domain"].at(ASKED, 72.0).system.domain_chips == 72
    assert AXES["system.hbm_bytes"].at(ASKED, 1e11).system.chip.hbm_bytes == 1e11
    assert AXES["system.hbm_bandwidth"].at(ASKED, 1e12).system.chip.hbm_bytes_per_s == 1e12
    assert AXES["system.link"].at(ASKED, 1e12).system.scale_up_bytes_per_s == 1e12
    network = AXES["system.network"].at(ASKED, 1e11)
    assert network.system.scale_out_bytes_per_s == 1e11
    assert network.system.chip == ASKED.system.chip
    assert network.model is ASKED.model


def test_model_fields():
    assert spec("model.experts", 64.0).moe.router.num_experts == 64
    assert spec("model.top_k", 4.0).moe.router.top_k == 4
    assert spec("model.expert_width", 512.0).moe.width == 512


@pytest.mark.parametrize("value", [0.5, 2.0, 4.0])
def test_granularity_keeps_all_and_active_parameters(value):
    before, after = count(ASKED.model.spec), count(spec("model.granularity", value))
    assert after.num_experts == value * before.num_experts
    assert after.top_k == value * before.top_k
    assert after.total - router(after) == before.total - router(before)
    assert after.active - router(after) == before.active - router(before)


def router(counts):
    return counts.num_moe_layers * counts.router_per_layer


def test_sparsity_keeps_all_parameters():
    before, after = count(ASKED.model.spec), count(spec("model.sparsity", 64.0))
    assert after.num_experts == 64 * after.top_k
    assert after.total - router(after) == pytest.approx(before.total - router(before), rel=1e-3)
    assert after.active < before.active


def test_layers_keep_dense_ones_first():
    fewer, more = spec("model.layers", 10.0), spec("model.layers", 100.0)
    assert [layer.moe for layer in fewer.layers] == [False] * 3 + [True] * 7
    assert sum(not layer.moe for layer in more.layers) == 3
    assert more.num_layers == 100
    assert spec("model.layers", 2.0).num_layers == 2


def test_lengths():
    assert AXES["isl"].at(ASKED, 10.0).isl == 10
    assert AXES["osl"].at(ASKED, 10.0).osl == 10
    longer = AXES["context"].at(ASKED, 12800.0)
    assert (longer.isl, longer.osl) == (10240, 2560)


def test_names():
    assert AXES["system"].at(ASKED, "hgx-h200").system.name == "hgx-h200"
    assert AXES["model"].at(ASKED, "olmoe-1b-7b").model.name == "olmoe-1b-7b"
    with pytest.raises(SpecError, match="give hgx-h200"):
        AXES["system"].at(ASKED, "hgx-h20")


def test_values_are_whole_where_they_must_be():
    assert AXES["model.experts"].legal(63.7) == 64
    assert AXES["model.granularity"].legal(0.5) == 0.5
    with pytest.raises(SpecError, match=r"model.layers is 0: give layers, from 1"):
        AXES["model.layers"].legal(0.2)
    with pytest.raises(SpecError, match="at least 1"):
        AXES["isl"].legal(0.2)


@pytest.mark.parametrize(("path", "value"), [("model.granularity", 3.0), ("model.granularity", 16.0 / 512)])
def test_experts_cannot_be_cut_into_fractions(path, value):
    with pytest.raises(SpecError, match="power of two"):
        spec(path, value)


def test_more_experts_of_a_token_than_there_are():
    with pytest.raises(SpecError, match="300 of 256 experts"):
        spec("model.top_k", 300.0)


def test_a_model_without_experts():
    dense = replace(ASKED, model=replace(ASKED.model, spec=replace(ASKED.model.spec, moe=None)))
    with pytest.raises(SpecError, match="has no experts"):
        AXES["model.experts"].at(dense, 8.0)
