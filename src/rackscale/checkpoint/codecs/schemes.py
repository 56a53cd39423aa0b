"""Which codec a tensor takes in a checkpoint of each quantisation method, by the tensors that are there."""

from collections.abc import Mapping
from dataclasses import dataclass

from rackscale.checkpoint.codecs.codec import Codec, beside
from rackscale.checkpoint.codecs.fp8 import Fp8Blocks
from rackscale.checkpoint.codecs.int4 import Int4Group32
from rackscale.checkpoint.codecs.mxfp4 import FusedMxfp4, Mxfp4
from rackscale.checkpoint.codecs.nvfp4_compressed_tensors import Nvfp4CompressedTensors
from rackscale.checkpoint.codecs.nvfp4_modelopt import Nvfp4ModelOpt
from rackscale.checkpoint.codecs.packed import Format
from rackscale.checkpoint.codecs.plain import Plain
from rackscale.checkpoint.safetensors_file import TensorEntry
from rackscale.core import SpecError

Tensors = Mapping[str, TensorEntry]

PLAIN = Plain()
MODELOPT = Nvfp4ModelOpt()
DEEPSEEK_FP8 = Fp8Blocks()
FUSED_MXFP4 = FusedMxfp4()
COMPRESSED_TENSORS: dict[Format, Codec] = {
    Format.NVFP4: Nvfp4CompressedTensors(),
    Format.INT4: Int4Group32(),
    Format.MXFP4: Mxfp4(),
    Format.FP8: Fp8Blocks("weight_scale"),
}


@dataclass(frozen=True, slots=True)
class PlainScheme:
    """Nothing is packed."""

    def codec(self, _tensor: str, /) -> Codec:
        """Plain."""
        return PLAIN


@dataclass(frozen=True, slots=True)
class ModelOptScheme:
    """uint8 is NVFP4; the rest is what its dtype says."""

    tensors: Tensors

    def codec(self, tensor: str, /) -> Codec:
        """By the tensor's dtype. Raises SpecError where its layer's inputs would be scaled too (AWQ)."""
        entry = self.tensors.get(tensor)
        if entry is None or entry.dtype != "U8":
            return PLAIN
        scaling = beside(tensor, "pre_quant_scale")
        if scaling in self.tensors:
            raise SpecError(
                f"tensor {scaling!r} in {entry.file} scales the inputs of a layer",
                hint="this form of AWQ is not implemented; use an export without it",
            )
        return MODELOPT


@dataclass(frozen=True, slots=True)
class CompressedTensorsScheme:
    """formats: what the config's groups may be in."""

    tensors: Tensors
    formats: frozenset[Format]

    def codec(self, tensor: str, /) -> Codec:
        """By the names and dtypes that are there. Raises SpecError where the config has no such format."""
        packed = self.tensors.get(beside(tensor, "weight_packed"))
        if packed is None:
            entry = self.tensors.get(tensor)
            blocks = entry is not None and entry.dtype == "F8_E4M3" and Format.FP8 in self.formats
            return COMPRESSED_TENSORS[Format.FP8] if blocks else PLAIN
        if packed.dtype == "I32":
            form = Format.INT4
        elif Format.MXFP4 in self.formats and beside(tensor, "weight_global_scale") not in self.tensors:
            form = Format.MXFP4
        else:
            form = Format.NVFP4
        if form not in self.formats:
            raise SpecError(
                f"tensor {packed.name!r} in {packed.file} looks like {form}",
                hint=f"config.json speaks of {', '.join(sorted(self.formats))}; the two are not of one model",
            )
        return COMPRESSED_TENSORS[form]


@dataclass(frozen=True, slots=True)
class Fp8Scheme:
    """E4M3 is FP8 in blocks; the rest is what its dtype says."""

    tensors: Tensors

    def codec(self, tensor: str, /) -> Codec:
        """By the tensor's dtype."""
        entry = self.tensors.get(tensor)
        return DEEPSEEK_FP8 if entry is not None and entry.dtype == "F8_E4M3" else PLAIN


@dataclass(frozen=True, slots=True)
class Mxfp4Scheme:
    """What has blocks beside it is MXFP4; the rest is what its dtype says."""

    tensors: Tensors

    def codec(self, tensor: str, /) -> Codec:
        """By the names that are there."""
        return FUSED_MXFP4 if f"{tensor}_blocks" in self.tensors else PLAIN
