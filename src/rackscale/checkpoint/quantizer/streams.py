"""One item of a plan: from the source's files, through an encoder, into a shard."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rackscale.checkpoint.checkpoint import TORCH_DTYPES
from rackscale.checkpoint.codecs import Format, Packed, Plain
from rackscale.checkpoint.quantizer import round_to_nearest as rtn
from rackscale.checkpoint.quantizer.encoder import Encoder
from rackscale.checkpoint.quantizer.layouts import MatrixLayout, OutputFormat
from rackscale.checkpoint.quantizer.plan import Copied, Decoded, Item, Matrix, Quantised
from rackscale.checkpoint.quantizer.reference import encode_reference, reference_squares
from rackscale.checkpoint.quantizer.shard_file import ShardFile
from rackscale.checkpoint.quantizer.source_files import SourceFiles
from rackscale.core import SpecError

BAND_BYTES = 1 << 21
BAND_MULTIPLE = 128  # rows: FP8 has a scale for as many


@dataclass(frozen=True, slots=True)
class Squares:
    """Sums of squares: of errors, and of weights."""

    error: float = 0.0
    weight: float = 0.0


Map = Callable[..., Iterable[Any]]


def stream(
    files: SourceFiles,
    out: ShardFile,
    form: OutputFormat,
    encoder: Encoder | None,
    item: Item,
    spread: Map,
) -> Squares:
    """Write the item. spread: a `map` over bands of rows. Raises SpecError where a number is not finite."""
    match item:
        case Copied(source=entry):
            (target,) = item.entries
            for offset, piece in files.pieces(entry, BAND_BYTES):
                out.write(target, piece, offset)
            files.forget(entry)
            return Squares()
        case Decoded():
            tensor = files.decode(item.source).to(TORCH_DTYPES[item.entry.dtype])
            out.write(item.entry, _bytes(tensor))
            return Squares()
        case Quantised():
            if encoder is None:
                return _stream_bands(files, out, form, item, spread)
            return _stream_whole(files, out, encoder, item)


def _stream_bands(
    files: SourceFiles, out: ShardFile, form: OutputFormat, item: Quantised, spread: Map
) -> Squares:
    """By rounding to nearest: a pass for the largest magnitude, and one that encodes."""
    readers = [_Reader(files, matrix) for matrix in item.matrices]
    most = 0.0
    for reader in readers:
        values = list(spread(lambda band: rtn.largest(band()), reader.bands()))
        most = max(most, rtn.finite_amax(values, reader.matrix.tensor))
    tensor_scale = rtn.tensor_scale_of(most) if form.packed == Format.NVFP4 else 1.0

    def write(reader: "_Reader", first: int, band: Callable[[], Tensor]) -> Squares:
        weight = band()
        if form.packed == Format.NVFP4:
            codes, scales = rtn.encode(weight, tensor_scale)
            squares = rtn.squares(weight, codes, scales, tensor_scale)
        else:
            codes, scales = encode_reference(form.packed, weight)
            squares = reference_squares(form.packed, weight, codes, scales)
        _write_rows(out, reader.matrix.layout, first, codes, scales)
        return Squares(*squares)

    sums: list[Squares] = []
    for reader in readers:
        bands = list(reader.bands())
        firsts = range(0, reader.matrix.rows, reader.band_rows)
        sums += spread(write, [reader] * len(bands), firsts, bands)
        _write_numbers(out, reader.matrix, tensor_scale, None)
        reader.forget()
    return Squares(math.fsum(part.error for part in sums), math.fsum(part.weight for part in sums))


def _stream_whole(files: SourceFiles, out: ShardFile, encoder: Encoder, item: Quantised) -> Squares:
    """By an encoder that sees matrices whole."""
    readers = [_Reader(files, matrix) for matrix in item.matrices]
    weights = tuple(reader.rows(0, reader.matrix.rows) for reader in readers)
    for reader, weight in zip(readers, weights, strict=True):
        rtn.finite_amax([rtn.largest(weight)], reader.matrix.tensor)
    sums = []
    packed = encoder.encode(tuple(matrix.role for matrix in item.matrices), weights)
    for reader, weight, part in zip(readers, weights, packed, strict=True):
        _write_rows(out, reader.matrix.layout, 0, part.codes, part.scales)
        _write_numbers(out, reader.matrix, part.tensor_scale, part.input_scale)
        sums.append(_squares(weight, part))
        reader.forget()
    return Squares(math.fsum(part.error for part in sums), math.fsum(part.weight for part in sums))


class _Reader:
    """Rows of one matrix of the source, plain or packed."""

    def __init__(self, files: SourceFiles, matrix: Matrix) -> None:
        self.matrix, self._files = matrix, files
        source = files.metadata.sources[matrix.role]
        is_plain = isinstance(files.metadata.scheme.codec(source.tensor), Plain)
        # What is packed is decoded whole, once: it is small beside what is not.
        self._decoded = None if is_plain else files.decode(source)
        parts = files.metadata.parts(source)
        self._entries = [files.metadata.tensors[part.tensor] for part in parts]
        row_bytes = matrix.columns * 4
        self.band_rows = max(1, BAND_BYTES // row_bytes // BAND_MULTIPLE) * BAND_MULTIPLE

    def bands(self) -> Iterator[Callable[[], Tensor]]:
        """Bands of rows, each read when it is asked for."""
        for first in range(0, self.matrix.rows, self.band_rows):
            last = min(first + self.band_rows, self.matrix.rows)
            yield partial(self.rows, first, last)

    def rows(self, first: int, last: int) -> Tensor:
        if self._decoded is not None:
            return self._decoded[first:last]
        return self._files.read_rows(self._entries[0], first, last)

    def forget(self) -> None:
        self._decoded = None
        for entry in self._entries:
            self._files.forget(entry)


def _write_rows(out: ShardFile, to: MatrixLayout, first: int, codes: Tensor, scales: Tensor) -> None:
    """Rows of codes from `first` on, and their scales, as many of them as the rows have."""
    codes_bytes, scales_bytes = _bytes(codes), _bytes(scales)
    out.write(to.codes, codes_bytes, first * (to.codes.num_bytes // to.codes.shape[0]))
    rows_of_scales = to.scales.shape[0]
    start = first if rows_of_scales == to.codes.shape[0] else first // BAND_MULTIPLE
    out.write(to.scales, scales_bytes, start * (to.scales.num_bytes // rows_of_scales))


def _write_numbers(out: ShardFile, matrix: Matrix, tensor_scale: float, input_scale: float | None) -> None:
    to = matrix.layout
    if to.tensor_scale is not None:
        out.write(to.tensor_scale, _number(tensor_scale, reciprocal=to.reciprocal))
    if to.input_scale is not None:
        if input_scale is None:
            raise SpecError(
                f"no input of tensor {matrix.tensor!r} was measured", hint="calibrate with a longer text"
            )
        out.write(to.input_scale, _number(input_scale, reciprocal=to.reciprocal))
    if to.shape is not None:
        out.write(to.shape, _bytes(torch.tensor([matrix.rows, matrix.columns])))


def _number(value: float, *, reciprocal: bool) -> memoryview:
    number = torch.tensor([value], dtype=torch.float32)
    return _bytes(1 / number if reciprocal else number)


def _squares(weight: Tensor, packed: Packed) -> Squares:
    if packed.format == Format.NVFP4:
        return Squares(*rtn.squares(weight, packed.codes, packed.scales, packed.tensor_scale))
    return Squares(*reference_squares(packed.format, weight, packed.codes, packed.scales))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
