"""Weights on their way into the layout of the packed kernels (csrc/packed.hpp): tiles of sixteen outputs.

A `Packer` collects what has to be done and allocates; the work it gives does it, on all cores, without the
interpreter. Until then tensors hold nothing.
"""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.core import SpecError
from rackscale.specs import Span

TILE = 16

Part = Packed | Tensor


class Layout(IntEnum):
    """csrc/packed.hpp's Format."""

    NVFP4 = 0
    INT4 = 1
    MXFP4 = 2
    FP8 = 3
    BF16 = 4


_LAYOUTS = {
    Format.NVFP4: Layout.NVFP4,
    Format.INT4: Layout.INT4,
    Format.MXFP4: Layout.MXFP4,
    Format.FP8: Layout.FP8,
}
_SPANS = {Layout.NVFP4: 64, Layout.INT4: 64, Layout.MXFP4: 128, Layout.FP8: 128, Layout.BF16: 64}


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedMatrix:
    """A weight of `columns` outputs and `depth` inputs in tiles; of experts: one after the other.

    tiles: uint8 [tiles, bytes] or [E, tiles, bytes], 64-byte aligned. tile_scales: fp32, one a tile.
    halves: 2 where tiles of gate and up take turns, each filled up to whole tiles by itself; otherwise 1.
    input_scale: the largest activation / 2688; None where the checkpoint does not say, or not one for all.
    """

    layout: Layout
    depth: int
    columns: int
    tiles: Tensor = field(repr=False)
    tile_scales: Tensor = field(repr=False)
    halves: int = 1
    input_scale: float | None = None

    def some_outputs(self, spans: Sequence[Span]) -> "PackedMatrix":
        """Several spans of outputs as one matrix. Copies them."""
        parts = [self.outputs(span.start, span.end) for span in spans]
        tiles = allocate(sum(part.tiles.numel() for part in parts)).view(-1, self.tiles.shape[-1])
        return replace(
            self,
            columns=sum(part.columns for part in parts),
            tiles=torch.cat([part.tiles for part in parts], out=tiles),
            tile_scales=torch.cat([part.tile_scales for part in parts]),
        )

    def outputs(self, start: int, stop: int) -> "PackedMatrix":
        """The outputs start .. stop - 1, of each half; multiples of 16, or the end. Of one matrix a view.

        Raises:
            SpecError: they cut a tile.

        """
        width = self.columns // self.halves
        if start % TILE or (stop % TILE and stop != width) or not 0 <= start < stop <= width:
            raise SpecError(f"outputs {start} .. {stop} of {width} cut a tile", hint="use multiples of 16")
        part = slice(start // TILE * self.halves, -(-stop // TILE) * self.halves)
        return self._with((stop - start) * self.halves, self.depth, self.tiles[..., part, :], part)

    def inputs(self, start: int, stop: int) -> "PackedMatrix":
        """The inputs start .. stop - 1 of every output, copied; multiples of 64 (mxfp4, fp8: 128).

        The last may be the end.

        Raises:
            SpecError: they cut what shares a line of scales.

        """
        span = _SPANS[self.layout]
        if start % span or (stop % span and stop != self.depth) or not 0 <= start < stop <= self.depth:
            raise SpecError(
                f"inputs {start} .. {stop} of {self.depth} cut a block", hint=f"use multiples of {span}"
            )
        by_span = self.tiles.unflatten(-1, (-(-self.depth // span), -1))
        some = by_span[..., start // span : -(-stop // span), :].flatten(-2)
        return self._with(self.columns, stop - start, some, slice(None))

    def _with(self, columns: int, depth: int, tiles: Tensor, part: slice) -> "PackedMatrix":
        scales = self.tile_scales[..., part]
        if not tiles.is_contiguous() or tiles.data_ptr() % 64:
            tiles = allocate(tiles.numel()).view(tiles.shape).copy_(tiles)
        return PackedMatrix(
            layout=self.layout,
            depth=depth,
            columns=columns,
            tiles=tiles,
            tile_scales=scales.contiguous(),
            halves=self.halves,
            input_scale=self.input_scale,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertParts:
    """One expert's matrices as the checkpoint has them: [width, hidden] twice, and [hidden, width]."""

    gate: Part
    up: Part
    down: Part


def allocate(size: int) -> Tensor:
    """`size` bytes of zeros, on huge pages where they help; forked children share them until they write."""
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)[:size]


def packable(parts: Sequence[Part]) -> bool:
    """Whether the kernels take these matrices, their rows one after the other, as one.

    That is: one format that they know, as many columns each, and no tile with rows of two of them.
    """
    layouts = {_layout(part) for part in parts}
    return (
        len(layouts) == 1
        and None not in layouts
        and len({part.shape[1] for part in parts}) == 1
        and all(part.shape[0] % TILE == 0 for part in parts[:-1])
    )


class Packer:
    """Collects matrices and packs them together. The parts given are kept alive until then."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._jobs: list[tuple[int, ...]] = []
        self._scales: list[float] = []
        self._kept: list[Part] = []

    def matrix(self, parts: Sequence[Part]) -> PackedMatrix:
        """The rows of all parts, one after the other: q, k and v, say.

        Raises:
            SpecError: they are not `packable`.

        """
        _make_sure(parts)
        matrix = _allocated(parts, sum(_num_tiles(part) for part in parts), 1)
        first = 0
        for part in parts:
            self._add(part, matrix, 0, first, 1)
            first += _num_tiles(part)
        return matrix

    def gate_up(self, gate: Part, up: Part) -> PackedMatrix:
        """Tiles of gate and up in turns, for the fused activation.

        Raises:
            SpecError: they are of different formats or shapes.

        """
        _make_sure_of_pair(gate, up)
        matrix = _allocated([gate, up], 2 * _num_tiles(gate), 2)
        self._add(gate, matrix, 0, 0, 2)
        self._add(up, matrix, 0, 1, 2)
        return matrix

    def experts(self, experts: Sequence[ExpertParts]) -> tuple[PackedMatrix, PackedMatrix]:
        """Gate with up, and down, of a layer's experts.

        Raises:
            SpecError: an expert differs from the first in format or shape.

        """
        gates = [part for expert in experts for part in (expert.gate, expert.up)]
        downs = [expert.down for expert in experts]
        for gate, up in zip(gates[::2], gates[1::2], strict=True):
            _make_sure_of_pair(gate, up)
        for parts in (gates, downs):
            if len({(_layout(part), tuple(part.shape)) for part in parts}) != 1:
                raise SpecError(
                    "experts of a layer differ in format or shape", hint="quantise all of them alike"
                )
        _make_sure(downs[:1])
        gate_up = _allocated(gates[:2], 2 * _num_tiles(gates[0]), 2, len(experts), _input_scale(gates))
        down = _allocated(downs[:1], _num_tiles(downs[0]), 1, len(experts), _input_scale(downs))
        for number, expert in enumerate(experts):
            self._add(expert.gate, gate_up, number, 0, 2)
            self._add(expert.up, gate_up, number, 1, 2)
            self._add(expert.down, down, number, 0, 1)
        return gate_up, down

    def take(self) -> Callable[[], None]:
        """The work of packing all that was asked for since the last time; any thread may do it."""
        from rackscale.runtime import _native  # noqa: PLC0415 (needs C++)

        scales = np.array(self._scales, dtype=np.float64)
        jobs = np.array(self._jobs, dtype=np.int64).reshape(-1, 11)
        kept, num_threads = self._kept, self._num_threads
        self._jobs, self._scales, self._kept = [], [], []

        def work() -> None:
            _native.pack(jobs, scales, num_threads)
            kept.clear()

        return work

    def _add(self, part: Part, matrix: PackedMatrix, expert: int, first_tile: int, tile_step: int) -> None:
        if isinstance(part, Packed):
            codes, scales = part.codes, part.scales
            scale_address, scale_stride = scales.data_ptr(), scales.stride(0) * scales.element_size()
            tensor_scale = part.tensor_scale
        else:
            codes, scale_address, scale_stride, tensor_scale = part, 0, 0, 1.0
        tiles, tile_scales = matrix.tiles, matrix.tile_scales
        num_tiles, size = tiles.shape[-2:]
        self._jobs.append((
            matrix.layout,
            codes.data_ptr(),
            codes.stride(0) * codes.element_size(),
            scale_address,
            scale_stride,
            *part.shape,
            tiles.data_ptr() + expert * num_tiles * size,
            tile_scales.data_ptr() + expert * num_tiles * 4,
            first_tile,
            tile_step,
        ))  # fmt: skip
        self._scales.append(tensor_scale)
        self._kept.append(part)


def _layout(part: Part) -> Layout | None:
    if isinstance(part, Packed):
        columns_apart = part.codes.stride(1) != 1 or part.scales.stride(-1) != 1
        return None if columns_apart else _LAYOUTS.get(part.format)
    return Layout.BF16 if part.dtype == torch.bfloat16 and part.dim() == 2 and part.stride(1) == 1 else None


def _make_sure(parts: Sequence[Part]) -> None:
    if not packable(parts):
        what = ", ".join(f"{_layout(part)} {tuple(part.shape)}" for part in parts)
        raise SpecError(f"matrices that cannot be packed as one: {what}", hint="see packable()")


def _make_sure_of_pair(gate: Part, up: Part) -> None:
    _make_sure([gate])
    _make_sure([up])
    if _layout(gate) != _layout(up) or gate.shape != up.shape:
        raise SpecError(
            f"gate {_layout(gate)} {tuple(gate.shape)} and up {_layout(up)} {tuple(up.shape)} differ",
            hint="quantise both alike",
        )


def _num_tiles(part: Part) -> int:
    return -(-part.shape[0] // TILE)


def _input_scale(parts: Sequence[Part]) -> float | None:
    """Theirs, if it is one."""
    scales = {part.input_scale if isinstance(part, Packed) else None for part in parts}
    return scales.pop() if len(scales) == 1 else None


def _allocated(
    parts: Sequence[Part], num_tiles: int, halves: int, num_experts: int = 0, input_scale: float | None = None
) -> PackedMatrix:
    from rackscale.runtime import _native  # noqa: PLC0415 (needs C++)

    layout, depth = _layout(parts[0]), parts[0].shape[1]
    if layout is None:
        raise SpecError("a matrix that cannot be packed", hint="see packable()")
    shape = (num_experts, num_tiles) if num_experts else (num_tiles,)
    size = _native.tile_bytes(layout, depth)
    return PackedMatrix(
        layout=layout,
        depth=depth,
        columns=sum(part.shape[0] for part in parts),
        tiles=allocate(max(num_experts, 1) * num_tiles * size).view(*shape, size),
        tile_scales=torch.empty(shape),
        halves=halves,
        input_scale=input_scale if num_experts else _input_scale(parts),
    )
