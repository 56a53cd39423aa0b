"""Calibration: a text runs through the model layer by layer, each quantised once its inputs are known.

The original runs beside it, so that each matrix makes up for what those before it have lost (GPTAQ, arXiv
2504.02692), and is then rounded as GPTQ does (arXiv 2210.17323). Memory holds one layer's weights and
moments, and the hidden states of the text twice.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from rackscale.checkpoint import Checkpoint, open_checkpoint
from rackscale.checkpoint.codecs import Format, Packed
from rackscale.checkpoint.quantizer.methods import Encoded, base_scale, gptq
from rackscale.checkpoint.quantizer.scope import groups_of
from rackscale.core import SpecError, TokenId
from rackscale.runtime.calibration.encoder import CalibratedEncoder, file_of, read, write
from rackscale.runtime.calibration.layer import Group, LayerPass, Side
from rackscale.runtime.calibration.moments import Moments
from rackscale.runtime.calibration.patched import Patched
from rackscale.runtime.calibration.windows import Windows
from rackscale.runtime.kernels.reference import Reference

WINDOW = 1024
INPUT_SPAN = 2688  # ModelOpt's: the largest activation over its scale

Progress = Callable[[int, int], None]


def _no_progress(_done: int, _total: int) -> None:
    """Nobody is told."""


def calibrate(
    path: Path, text: str, roles: Collection[str], scratch: Path, progress: Progress = _no_progress
) -> CalibratedEncoder:
    """Choose codes and scales in NVFP4 for the roles, and leave them in the folder `scratch`.

    A layer whose file is there is taken from it. progress: told how many layers are done, of how many.
    Raises SpecError where the checkpoint is broken or the text is shorter than two tokens.
    """
    checkpoint = open_checkpoint(path)
    tokenizer, begin = checkpoint.tokenizer, checkpoint.generation.bos_token_id
    assert tokenizer is not None, "open_checkpoint requires one unless told otherwise"
    encoded = tokenizer.encode(text)
    tokens = encoded if begin is None else [begin, *encoded]
    return calibrate_tokens(checkpoint, tokens, roles, scratch, progress)


@torch.inference_mode()
def calibrate_tokens(
    checkpoint: Checkpoint,
    tokens: Sequence[TokenId],
    roles: Collection[str],
    scratch: Path,
    progress: Progress = _no_progress,
) -> CalibratedEncoder:
    """The same for a text in tokens."""
    if len(tokens) < 2:
        raise SpecError("the text to calibrate with is too short", hint="give one like those to come")
    calibration = _Calibration(checkpoint, tokens, groups_of(roles), scratch)
    total = checkpoint.spec.num_layers
    for number in range(total):
        calibration.layer(number)
        progress(number + 1, total)
    if "head" in roles:
        calibration.head()
    return CalibratedEncoder(scratch=scratch)


class _Calibration:
    """Both sides as they are after the layers so far."""

    def __init__(
        self, checkpoint: Checkpoint, tokens: Sequence[TokenId], groups: Sequence[Group], scratch: Path
    ) -> None:
        self._spec, self._groups, self._scratch = checkpoint.spec, groups, scratch
        self._windows = Windows(self._spec, tokens, min(WINDOW, self._spec.max_positions))
        embed = checkpoint.tensor("embed")
        hidden = [embed[piece].float() for piece in self._windows.tokens]
        self._patched = Patched(checkpoint)
        self._original = Side(checkpoint=checkpoint, hidden=hidden)
        self._quantised = Side(checkpoint=self._patched, hidden=list(hidden))
        self._packed: dict[str, Packed] = {}

    def layer(self, number: int) -> None:
        """Quantise the next layer."""
        groups = [group for group in self._groups if group[0].startswith(f"layers.{number}.")]
        path = self._scratch / file_of(f"layers.{number}.")
        known = path.exists()
        if known:
            for role, packed in read(path, tuple(role for group in groups for role in group)).items():
                self._patch(role, packed)
        LayerPass(
            number,
            original=self._original,
            quantised=self._quantised,
            windows=self._windows,
            groups=() if known else groups,
            quantise=self._quantise,
        ).run()
        if groups and not known:
            write(path, self._packed)
        self._packed.clear()
        self._patched.patches.clear()

    def head(self) -> None:
        """Quantise the head, behind the last layer."""
        checkpoint, kernels = self._original.checkpoint, Reference()
        weight = checkpoint.tensor("final_norm").float()
        moments = Moments(1, self._spec.hidden)
        for pair in zip(self._quantised.hidden, self._original.hidden, strict=True):
            moments.add(0, *(kernels.rms_norm(hidden, weight, self._spec.norm_eps) for hidden in pair))
        self._quantise([("head",)], moments)
        write(self._scratch / file_of("head"), self._packed)

    def _quantise(self, groups: Sequence[Group], moments: Moments) -> None:
        matrices = [[self._original.checkpoint.tensor(role).float() for role in group] for group in groups]
        weight_ENK = moments.suited(torch.stack([torch.cat(group) for group in matrices]))
        scales = [base_scale([weight]) for weight in weight_ENK]
        encoded = gptq(weight_ENK, moments.own_EKK, torch.tensor(scales))
        for group, parts, scale, whole in zip(groups, matrices, scales, encoded, strict=True):
            rows = [len(part) for part in parts]
            pieces = zip(group, whole.codes.split(rows), whole.scales.split(rows), strict=True)
            for role, codes, block_scales in pieces:
                self._packed[role] = Packed(
                    format=Format.NVFP4,
                    codes=codes.contiguous(),
                    scales=block_scales.contiguous(),
                    tensor_scale=scale,
                    input_scale=moments.largest / INPUT_SPAN,
                )
                self._patch(role, self._packed[role])

    def _patch(self, role: str, packed: Packed) -> None:
        encoded = Encoded(codes=packed.codes, scales=packed.scales)
        self._patched.patches[role] = encoded.decode(packed.tensor_scale)
