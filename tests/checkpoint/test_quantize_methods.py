"""Ways to choose codes and block scales: none is worse than rounding to nearest by what it minimises."""

import math

import pytest
import torch
from torch import Tensor

from rackscale.checkpoint.numerics import nvfp4
from rackscale.checkpoint.quantizer.methods import base_scale, damped, gptq, search, search_shared


def weights(*shape: int, seed: int = 0) -> Tensor:
    """Heavy-tailed, as trained matrices are."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    return normal * normal.abs().sqrt() * 0.02


def moments(num_columns: int, num_tokens: int, seed: int = 1) -> Tensor:
    """Of inputs whose columns differ in size and go together."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(num_columns, num_columns, generator=generator) / num_columns**0.5
    sizes = torch.rand(num_columns, generator=generator) * 3
    x_TK = (torch.randn(num_tokens, num_columns, generator=generator) @ mixed + 0.3) * sizes
    return x_TK.mT @ x_TK


def nearest(weight: Tensor) -> Tensor:
    return nvfp4.decode(*nvfp4.encode(weight))


def loss(weight: Tensor, decoded: Tensor, moments_KK: Tensor) -> float:
    off = (weight - decoded).double()
    return float(((off @ moments_KK.double()) * off).sum())


def test_search_has_less_error_than_rounding_to_nearest() -> None:
    weight = weights(64, 256)
    scale, (found,) = search_shared([weight])
    off = found.decode(scale) - weight
    assert off.square().sum() < 0.85 * (nearest(weight) - weight).square().sum()


def test_no_single_scale_of_a_block_is_better_than_the_one_that_search_found() -> None:
    weight = weights(8, 32)
    scale, (found,) = search_shared([weight])
    off = (found.decode(scale) - weight).unflatten(1, (-1, 16)).square().sum(-1)
    every = torch.arange(1, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).float() * scale
    numbers = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6])
    grid = torch.cat((numbers, -numbers))[:, None] * every  # [16, scales]
    blocks = weight.unflatten(1, (-1, 16))
    distances = (blocks[..., None, None] - grid).abs().amin(-2).square().sum(-2)  # [N, B, scales]
    best = distances.amin(-1)
    assert (off <= best * 1.02 + 1e-12).float().mean() > 0.9
    assert float(off.sum()) < 1.02 * float(best.sum())


def test_matrices_that_share_a_scale_share_it() -> None:
    small, large = weights(16, 32), 30 * weights(16, 32, seed=2)
    scale, (first, second) = search_shared([small, large])
    assert scale == base_scale([small, large]) == pytest.approx(float(large.abs().max()) / 1536)
    assert (first.decode(scale) - small).norm() < 0.12 * small.norm()
    assert (second.decode(scale) - large).norm() < 0.12 * large.norm()


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_zeros_and_huge_and_tiny_matrices_stay_finite(factor: float) -> None:
    weight = weights(16, 32) * factor
    scale, (found,) = search_shared([weight])
    assert math.isfinite(scale)
    assert scale > 0
    assert (found.decode(scale) - weight).norm() <= 0.12 * weight.norm()
    (calibrated,) = gptq(weight[None], moments(32, 100)[None], torch.tensor([scale]))
    assert calibrated.decode(scale).isfinite().all()


def test_a_band_of_rows_is_encoded_as_in_the_whole() -> None:
    weight = weights(48, 64)
    scale = base_scale([weight])
    whole, band = search(weight, scale), search(weight[16:32], scale)
    assert torch.equal(whole.codes[16:32], band.codes)
    assert torch.equal(whole.scales[16:32], band.scales)


def test_what_is_exact_in_nvfp4_stays_so() -> None:
    weight = nearest(weights(16, 64))
    scale, (found,) = search_shared([weight])
    assert (found.decode(scale) - weight).norm() < 0.05 * weight.norm()


def test_gptq_changes_outputs_less_than_search_and_sweeps_less_still() -> None:
    weight, moments_KK = weights(64, 128), moments(128, 1000)
    scale = base_scale([weight])
    found = [search(weight, scale)]
    found += [gptq(weight[None], moments_KK[None], torch.tensor([scale]), sweeps=n)[0] for n in (0, 1, 3)]
    by_search, plain, once, often = (loss(weight, f.decode(scale), damped(moments_KK)) for f in found)
    assert plain < 0.5 * by_search
    assert once < plain
    assert often <= once


def test_gptq_of_several_matrices_is_that_of_each() -> None:
    weight = torch.stack([weights(16, 48), weights(16, 48, seed=3)])
    moments_EKK = torch.stack([moments(48, 200), moments(48, 300, seed=4)])
    scales = torch.tensor([base_scale([matrix]) for matrix in weight])
    together = gptq(weight, moments_EKK, scales)
    for number, found in enumerate(together):
        (alone,) = gptq(weight[number, None], moments_EKK[number, None], scales[number, None])
        both = [e.decode(float(scales[number])) for e in (found, alone)]
        assert torch.allclose(*both, atol=1e-6)


def test_gptq_without_anything_known_is_as_good_as_search() -> None:
    weight = weights(32, 64)
    scale, (found,) = search_shared([weight])
    (calibrated,) = gptq(weight[None], torch.zeros(1, 64, 64), torch.tensor([scale]))
    assert torch.equal(found.decode(scale), calibrated.decode(scale))


def test_gptq_takes_moments_of_fewer_tokens_than_columns() -> None:
    weight, moments_KK = weights(16, 64), moments(64, 5)
    scale = base_scale([weight])
    (found,) = gptq(weight[None], moments_KK[None], torch.tensor([scale]))
    off = loss(weight, found.decode(scale), damped(moments_KK))
    assert off < loss(weight, search(weight, scale).decode(scale), damped(moments_KK))
