"""Weights rounded so that a layer's outputs change least, given the second moments of its inputs.

The error of a row w rounded to q, over inputs x, is (w - q) H (w - q)^T with H = sum of x x^T. GPTQ (Frantar
et al., arXiv 2210.17323) rounds column by column, and lets the columns that are left make up for each error.
What a column adds to the whole error is then known at once, so that a block of 16 is rounded with several
scales and the best of them stays. Then blocks are rounded again, one after the other, given all the others:
cyclic descent, as in CDQuant (arXiv 2406.17542), over blocks in place of columns.

Axes: E matrices that have each its own moments, N rows, K columns, B blocks, J the columns of a block,
C candidates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rackscale.checkpoint.numerics.nvfp4 import BLOCK
from rackscale.checkpoint.quantizer.methods.encoded import (
    Encoded,
    candidate_scales,
    encoded,
    nearest,
    scale_values,
)

OFFSETS = range(-2, 7)
DAMPING = 0.01  # of the mean of the moments' diagonal, as in the paper
LEAST_GAIN = 1e-6  # of a block's error: what is less may be the arithmetic's


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rounded:
    """A block [E, N, J]: numbers of E2M1, the bits of its scales [E, N], what each column leaves for the
    others to make up for, over the factor's diagonal, and what the block adds to the error [E, N]."""

    numbers_ENJ: Tensor
    scales_EN: Tensor
    errors_ENJ: Tensor
    losses_EN: Tensor

    @property
    def values_ENJ(self) -> Tensor:
        """What the codes stand for, over the tensor scale."""
        return self.numbers_ENJ * scale_values(self.scales_EN).unsqueeze(-1)


def gptq(
    weight_ENK: Tensor, moments_EKK: Tensor, tensor_scale_E: Tensor, *, sweeps: int = 2
) -> list[Encoded]:
    """Each matrix in codes and block scales.

    weight and moments in fp32, K a multiple of 16, tensor scales above zero. Moments may be singular, or zero
    where nothing is known. sweeps: how often all blocks are rounded again.
    """
    moments_EKK = damped(moments_EKK)
    target_ENK = weight_ENK / tensor_scale_E[:, None, None]
    blocks = _first_pass(target_ENK, moments_EKK)
    for _ in range(sweeps):
        _sweep(target_ENK, moments_EKK, blocks)
    numbers_ENK = torch.cat([block.numbers_ENJ for block in blocks], -1)
    scales_ENB = torch.stack([block.scales_EN for block in blocks], -1)
    return [encoded(*matrix) for matrix in zip(numbers_ENK, scales_ENB, strict=True)]


def damped(moments_EKK: Tensor) -> Tensor:
    """With `DAMPING` of the mean on the diagonal, so that they can be inverted; zero becomes the identity."""
    diagonal_EK = moments_EKK.diagonal(dim1=-2, dim2=-1)
    mean_E1 = diagonal_EK.mean(-1, keepdim=True)
    extra_E1 = torch.where(mean_E1 > 0, DAMPING * mean_E1, 1.0)
    return moments_EKK + torch.diag_embed(extra_E1.expand_as(diagonal_EK))


def _first_pass(target_ENK: Tensor, moments_EKK: Tensor) -> list[_Rounded]:
    """GPTQ."""
    factor_EKK = _inverse_factor(moments_EKK)
    rest_ENK = target_ENK.clone()
    blocks = []
    for start in range(0, target_ENK.shape[-1], BLOCK):
        own, later = slice(start, start + BLOCK), slice(start + BLOCK, None)
        block = _round(rest_ENK[..., own], factor_EKK[:, own, own])
        rest_ENK[..., later] -= block.errors_ENJ @ factor_EKK[:, own, later]
        blocks.append(block)
    return blocks


def _sweep(target_ENK: Tensor, moments_EKK: Tensor, blocks: list[_Rounded]) -> None:
    """Round each block again, given the others, where that lowers the error. Changes `blocks`."""
    off_ENK = target_ENK - torch.cat([block.values_ENJ for block in blocks], -1)
    for number, block in enumerate(blocks):
        own = slice(number * BLOCK, (number + 1) * BLOCK)
        moments_EJJ = moments_EKK[:, own, own]
        pull_ENJ = off_ENK @ moments_EKK[..., own]
        values_ENJ = block.values_ENJ
        best_ENJ = values_ENJ + torch.linalg.solve(moments_EJJ, pull_ENJ.mT).mT
        tried = _round(best_ENJ, _inverse_factor(moments_EJJ))
        now_ENJ = values_ENJ - best_ENJ
        losses_EN = ((now_ENJ @ moments_EJJ) * now_ENJ).sum(-1)
        better_EN = tried.losses_EN < losses_EN * (1 - LEAST_GAIN)
        blocks[number] = _Rounded(
            numbers_ENJ=torch.where(better_EN[..., None], tried.numbers_ENJ, block.numbers_ENJ),
            scales_EN=torch.where(better_EN, tried.scales_EN, block.scales_EN),
            errors_ENJ=block.errors_ENJ,
            losses_EN=block.losses_EN,
        )
        off_ENK[..., own] = target_ENK[..., own] - blocks[number].values_ENJ


def _inverse_factor(moments: Tensor) -> Tensor:
    """The upper factor U of the inverse, U^T U."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments.double()))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _round(wanted_ENJ: Tensor, factor_EJJ: Tensor) -> _Rounded:
    """A block column by column with each candidate for its scale. factor: the upper one of the inverse of the
    moments that it is judged by."""
    scales_ECN = candidate_scales(wanted_ENJ, OFFSETS).mT.contiguous()
    factors_ECN = scale_values(scales_ECN)
    losses_ECN = torch.zeros_like(factors_ECN)
    # Columns first, so that each is one contiguous piece.
    rest_JECN = wanted_ENJ.movedim(-1, 0).unsqueeze(2).repeat(1, 1, len(OFFSETS), 1)
    numbers_JECN, errors_JECN = torch.empty_like(rest_JECN), torch.empty_like(rest_JECN)
    for column in range(BLOCK):
        row_JE11 = factor_EJJ[:, column].mT[..., None, None]
        number = nearest(rest_JECN[column] / factors_ECN)
        error = (rest_JECN[column] - number * factors_ECN) / row_JE11[column]
        losses_ECN += error.square()
        rest_JECN[column + 1 :] -= row_JE11[column + 1 :] * error
        numbers_JECN[column], errors_JECN[column] = number, error
    best_E1N = losses_ECN.argmin(1, keepdim=True)
    best_JE1N = best_E1N.expand(BLOCK, *best_E1N.shape)
    return _Rounded(
        numbers_ENJ=numbers_JECN.gather(2, best_JE1N).squeeze(2).movedim(0, -1),
        scales_EN=scales_ECN.gather(1, best_E1N).squeeze(1),
        errors_ENJ=errors_JECN.gather(2, best_JE1N).squeeze(2).movedim(0, -1),
        losses_EN=losses_ECN.gather(1, best_E1N).squeeze(1),
    )
