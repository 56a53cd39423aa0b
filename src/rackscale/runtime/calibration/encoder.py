"""What calibration has chosen, in the files of a folder: one for each layer, and one for the head."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rackscale.checkpoint.codecs import Format, Packed
from rackscale.core import SpecError


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibratedEncoder:
    """An `Encoder` that reads its answers. It is nothing but the folder, so that any thread or process can
    have it."""

    scratch: Path

    def encode(self, roles: tuple[str, ...], weights: tuple[Tensor, ...]) -> tuple[Packed, ...]:
        """As calibration left them; the weights are those that it saw."""
        del weights
        found = read(self.scratch / file_of(roles[0]), roles)
        return tuple(found[role] for role in roles)


def file_of(role: str) -> str:
    """The name of the file that has the role."""
    owner = ".".join(role.split(".")[:2]) if role.startswith("layers.") else role
    return f"{owner}.safetensors"


def write(path: Path, packed: Mapping[str, Packed]) -> None:
    """A file, whole or not at all. All have an input_scale."""
    tensors: dict[str, Tensor] = {}
    for role, matrix in packed.items():
        tensors[f"{role}/codes"], tensors[f"{role}/scales"] = matrix.codes, matrix.scales
        tensors[f"{role}/numbers"] = torch.tensor([matrix.tensor_scale, matrix.input_scale])
    draft = path.with_suffix(".draft")
    save_file(tensors, draft)
    draft.rename(path)


def read(path: Path, roles: tuple[str, ...]) -> dict[str, Packed]:
    """Some of a file's roles. Raises SpecError where it is damaged or lacks one."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {
                (role, part): file.get_tensor(f"{role}/{part}")
                for role in roles
                for part in ("codes", "scales", "numbers")
            }
    except (OSError, SafetensorError) as error:
        raise SpecError(
            f"{path} is not of this calibration ({error})", hint="remove it and calibrate again"
        ) from None
    packed = {}
    for role in roles:
        tensor_scale, input_scale = tensors[role, "numbers"].tolist()
        packed[role] = Packed(
            format=Format.NVFP4,
            codes=tensors[role, "codes"],
            scales=tensors[role, "scales"],
            tensor_scale=tensor_scale,
            input_scale=input_scale,
        )
    return packed
