"""Columns of datasheet rates."""

import numpy as np
import pytest

from rackscale.cost import Chips, Precision
from rackscale.cost.formats import tensor_rate
from rackscale.specs.catalog import load_system


def columns(*names):
    return Chips.of([load_system(name) for name in names])


def test_weights_in_a_format_without_units_are_multiplied_in_bf16():
    chips = columns("hgx-h200", "hgx-b200")
    assert chips.tensor_flops[2, 0] == chips.tensor_flops[0, 0]
    assert chips.tensor_flops[2, 1] == 9000e12


def test_more_units_than_kernels_reach_count_as_measured():
    """NVFP4 products on GB300 over GB200: 5,299 over 4,978 TFLOP/s, where datasheets say 1.5."""
    chips = columns("gb200-nvl72", "gb300-nvl72")
    assert chips.tensor_flops[2, 1] / chips.tensor_flops[2, 0] == pytest.approx(5299 / 4978, rel=0.01)


def test_a_generation_without_measurements_is_unknown():
    assert columns("hgx-h200", "gb200-nvl72", "mi355x").generation.tolist() == [0, 1, -1]


def test_each_row_multiplies_in_its_own_arithmetic():
    chips = columns("gb200-nvl72", "gb200-nvl72", "gb200-nvl72")
    precision = Precision.of(["bf16", "fp8", "mxfp4"], ["bf16"] * 3, ["bf16"] * 3, np.ones(3))
    assert tensor_rate(chips, precision.expert_math).tolist() == [2500e12, 5000e12, 10000e12]
    assert precision.expert_bytes.tolist() == [2.0, 1.0, 0.53125]


def test_formats_are_like_the_one_that_was_measured():
    kinds = Precision.of(["mxfp4", "nvfp4", "bf16"], ["bf16"] * 3, ["bf16"] * 3, np.ones(3)).expert_kind
    assert kinds[0] == kinds[1]
    assert kinds[2] == -1
