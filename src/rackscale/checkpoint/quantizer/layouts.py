"""How a packed matrix lies in an output checkpoint, by format: names, dtypes and shapes of its tensors."""

from dataclasses import dataclass
from enum import StrEnum
from math import prod

from rackscale.checkpoint.codecs import Format
from rackscale.checkpoint.safetensors_file import BITS_OF_DTYPE


class OutputFormat(StrEnum):
    """Formats that are written. nvfp4 is as ModelOpt exports it."""

    NVFP4 = "nvfp4"
    NVFP4_COMPRESSED_TENSORS = "nvfp4-compressed-tensors"
    INT4 = "int4-g32"
    MXFP4 = "mxfp4"
    FP8 = "fp8-128x128"

    @property
    def packed(self) -> Format:
        """What codes and scales mean."""
        return Format.NVFP4 if self == OutputFormat.NVFP4_COMPRESSED_TENSORS else Format(self.value)

    @property
    def group(self) -> int:
        """What columns must be a multiple of."""
        return {Format.NVFP4: 16, Format.INT4: 32, Format.MXFP4: 32, Format.FP8: 1}[self.packed]


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor to be written: dtype as safetensors spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * BITS_OF_DTYPE[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class MatrixLayout:
    """codes and scales: as `Packed` has them, byte by byte. The others hold what `Packed` says in numbers."""

    codes: Entry
    scales: Entry
    tensor_scale: Entry | None = None
    reciprocal: bool = False  # of tensor and input scales: compressed-tensors divides by them
    input_scale: Entry | None = None
    shape: Entry | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        every = (self.codes, self.scales, self.tensor_scale, self.input_scale, self.shape)
        return tuple(entry for entry in every if entry is not None)


def layout(form: OutputFormat, tensor: str, rows: int, columns: int, *, calibrated: bool) -> MatrixLayout:
    """The layout of the logical tensor ("model.layers.0.mlp.up_proj.weight"), a matrix [rows, columns].
    calibrated: the scale of its inputs is known, and written where the format has room for it."""
    module = tensor.removesuffix(".weight")
    match form:
        case OutputFormat.NVFP4:
            return MatrixLayout(
                codes=Entry(f"{module}.weight", "U8", (rows, columns // 2)),
                scales=Entry(f"{module}.weight_scale", "F8_E4M3", (rows, columns // 16)),
                tensor_scale=Entry(f"{module}.weight_scale_2", "F32", ()),
                input_scale=Entry(f"{module}.input_scale", "F32", ()) if calibrated else None,
            )
        case OutputFormat.NVFP4_COMPRESSED_TENSORS:
            return MatrixLayout(
                codes=Entry(f"{module}.weight_packed", "U8", (rows, columns // 2)),
                scales=Entry(f"{module}.weight_scale", "F8_E4M3", (rows, columns // 16)),
                tensor_scale=Entry(f"{module}.weight_global_scale", "F32", (1,)),
                input_scale=Entry(f"{module}.input_global_scale", "F32", (1,)) if calibrated else None,
                reciprocal=True,
            )
        case OutputFormat.INT4:
            return MatrixLayout(
                codes=Entry(f"{module}.weight_packed", "I32", (rows, columns // 8)),
                scales=Entry(f"{module}.weight_scale", "BF16", (rows, columns // 32)),
                shape=Entry(f"{module}.weight_shape", "I64", (2,)),
            )
        case OutputFormat.MXFP4:
            return MatrixLayout(
                codes=Entry(f"{module}.weight_packed", "U8", (rows, columns // 2)),
                scales=Entry(f"{module}.weight_scale", "U8", (rows, columns // 32)),
            )
        case OutputFormat.FP8:
            return MatrixLayout(
                codes=Entry(f"{module}.weight", "F8_E4M3", (rows, columns)),
                scales=Entry(f"{module}.weight_scale_inv", "F32", (-(-rows // 128), -(-columns // 128))),
            )
