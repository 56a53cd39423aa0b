"""Tables of rotations, by their definitions."""

import math

import pytest
import torch

from rackscale.runtime.rope import Rope, halves
from rackscale.specs import LinearScaling, Llama3Scaling, RopeSpec, YarnScaling

CPU = torch.device("cpu")


def table(scaling=None, dim=8, theta=100.0, positions=50):
    return Rope(RopeSpec(theta=theta, dim=dim, scaling=scaling), positions, CPU)


def yarn(**changes):
    fields = {"factor": 4.0, "beta_fast": 8.0, "beta_slow": 1.0, "original_max_positions": 32}
    return YarnScaling(**{**fields, "attention_factor": 1.0, **changes})


def test_angles_fall_with_the_dimension():
    rope = table()
    for pair in range(4):
        angle = 3 * 100.0 ** (-2 * pair / 8)
        assert rope.cos[3, pair].item() == pytest.approx(math.cos(angle), abs=1e-6)
        assert rope.sin[3, pair].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_linear_scaling_is_a_slower_walk():
    assert torch.allclose(table(LinearScaling(factor=4.0)).cos[::4], table().cos[:13], atol=1e-6)


def test_llama3_keeps_high_frequencies_and_slows_low_ones():
    scaling = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=32)
    scaled, plain = table(scaling, dim=16, theta=1e6), table(dim=16, theta=1e6)
    assert torch.equal(scaled.cos[:, 0], plain.cos[:, 0])
    slowest = 1e6 ** (-14 / 16) / 8
    assert scaled.sin[40, -1].item() == pytest.approx(math.sin(40 * slowest), rel=1e-5)


def test_yarn_keeps_high_frequencies_slows_low_ones_and_stretches():
    scaled, plain = table(yarn(attention_factor=1.25), dim=16, theta=1e6), table(dim=16, theta=1e6)
    assert torch.allclose(scaled.cos[:, 0], plain.cos[:, 0] * 1.25)
    slowest = 1e6 ** (-14 / 16) / 4
    assert scaled.sin[40, -1].item() == pytest.approx(1.25 * math.sin(40 * slowest), rel=1e-5)


def test_yarn_with_one_bound_for_both_ends_is_a_step():
    rope = table(yarn(beta_fast=1.0, beta_slow=1.0, truncate=False))
    assert rope.cos.isfinite().all()


def test_halves_put_pairs_apart():
    rows = torch.arange(6)[:, None]
    assert halves(rows)[:, 0].tolist() == [0, 2, 4, 1, 3, 5]
