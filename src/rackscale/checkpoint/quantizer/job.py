"""Quantising a checkpoint: read, encode and write, tensor by tensor, so that memory holds none for long."""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rackscale import __version__
from rackscale.checkpoint.codecs import Plain
from rackscale.checkpoint.metadata import Metadata, open_metadata
from rackscale.checkpoint.quantizer.config_files import write_config_files
from rackscale.checkpoint.quantizer.draft import Done, Draft, open_draft
from rackscale.checkpoint.quantizer.encoder import Encoder
from rackscale.checkpoint.quantizer.layouts import OutputFormat
from rackscale.checkpoint.quantizer.plan import Item, Plan, Quantised, ShardPlan, make_plan
from rackscale.checkpoint.quantizer.scope import Scope
from rackscale.checkpoint.quantizer.shard_file import ShardFile
from rackscale.checkpoint.quantizer.source_files import SourceFiles, open_source
from rackscale.checkpoint.quantizer.streams import Squares, stream
from rackscale.core import SpecError

SHARD_BYTES = 5_000_000_000
# A tensor of more is read by all threads together, not by one while the others run out of work.
WIDE_BYTES = 1 << 28
# Of matrices that are held whole, in fp32 and a few copies, by all threads together.
HELD_BYTES = 1 << 30
COPIES = 4
SPARE_BYTES = 1 << 26  # for headers, config files and the tokenizer

Method = Literal["rtn", "search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What makes an output: two runs with the same ones of the same source write the same bytes.

    calibration: identifies what inputs were measured on; None where they were not, and then the output is
    for engines that leave activations alone.
    """

    form: OutputFormat = OutputFormat.NVFP4
    scope: Scope = Scope.EXPERTS
    method: Method = "rtn"
    calibration: str | None = None
    shard_bytes: int = SHARD_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """tensors: matrices that were quantised. unfit: those in scope that stayed, their columns being no
    whole groups. mse_relative: sum of squared errors over sum of squares, of what was quantised."""

    tensors: int
    unfit: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    mse_relative: float


class Job:
    """A checked source, a plan and a draft. `run` ends it."""

    def __init__(self, metadata: Metadata, plan: Plan, draft: Draft, options: Options) -> None:
        self.metadata, self.plan, self.draft, self.options = metadata, plan, draft, options

    @property
    def roles(self) -> tuple[str, ...]:
        """What will be quantised."""
        return tuple(
            matrix.role
            for shard in self.plan.shards
            for item in shard.items
            if isinstance(item, Quantised)
            for matrix in item.matrices
        )

    def run(
        self,
        encoder: Encoder | None = None,
        *,
        num_threads: int | None = None,
        on_progress: Callable[[int], object] = lambda _: None,
    ) -> Result:
        """Write what is not written yet, and let the target appear.

        encoder None: NVFP4 rounded to nearest, as ModelOpt does; other formats as their reference does.
        on_progress: gets bytes of the source that are done with.
        Raises SpecError naming a tensor whose numbers are not finite.
        """
        done = [
            self._shard(shard, encoder, num_threads or len(os.sched_getaffinity(0)), on_progress)
            for shard in self.plan.shards
        ]
        options = self.options
        calibrated = options.calibration is not None
        write_config_files(
            self.metadata.path, self.draft.folder, self.plan, options.form, calibrated=calibrated
        )
        self.draft.publish()
        weight = math.fsum(shard.weight for shard in done)
        return Result(
            tensors=len(self.plan.quantised),
            unfit=self.plan.unfit,
            bytes_before=self.plan.bytes_before,
            bytes_after=self.plan.bytes_after,
            mse_relative=math.fsum(shard.error for shard in done) / weight if weight else 0.0,
        )

    def _shard(
        self,
        shard: ShardPlan,
        encoder: Encoder | None,
        num_threads: int,
        on_progress: Callable[[int], object],
    ) -> Done:
        if shard.name in self.draft.done:
            on_progress(sum(item.num_bytes for item in shard.items))
            return self.draft.done[shard.name]
        wide = [item for item in shard.items if item.num_bytes > WIDE_BYTES]
        narrow = [item for item in shard.items if item.num_bytes <= WIDE_BYTES]
        sums: list[Squares] = []
        with (
            open_source(self.metadata) as files,
            ShardFile(self.draft.folder / shard.name, shard.entries) as out,
            ThreadPoolExecutor(self._num_threads(shard, encoder, num_threads)) as pool,
        ):
            for squares, item in _streamed(files, out, self.options.form, encoder, pool, wide, narrow):
                sums.append(squares)
                on_progress(item.num_bytes)
            out.finish()
            num_bytes = out.num_bytes
        done = Done(
            shard=shard.name,
            num_bytes=num_bytes,
            error=math.fsum(part.error for part in sums),
            weight=math.fsum(part.weight for part in sums),
        )
        self.draft.add(done)
        return done

    def _num_threads(self, shard: ShardPlan, encoder: Encoder | None, most: int) -> int:
        """As many as may hold their matrices at once."""
        held = [
            4 * sum(matrix.rows * matrix.columns for matrix in item.matrices)
            for item in shard.items
            if isinstance(item, Quantised) and (encoder is not None or self._is_packed(item))
        ]
        return min(most, max(1, HELD_BYTES // (COPIES * max(held)))) if held else most

    def _is_packed(self, item: Quantised) -> bool:
        codecs = (self.metadata.scheme.codec(matrix.tensor) for matrix in item.matrices)
        return not all(isinstance(codec, Plain) for codec in codecs)


def _streamed(
    files: SourceFiles,
    out: ShardFile,
    form: OutputFormat,
    encoder: Encoder | None,
    pool: ThreadPoolExecutor,
    wide: Iterable[Item],
    narrow: Iterable[Item],
) -> Iterator[tuple[Squares, Item]]:
    """Narrow items at once, one a thread; wide ones one after the other, each by all threads."""
    for item in wide:
        yield stream(files, out, form, encoder, item, pool.map), item
    yield from pool.map(lambda item: (stream(files, out, form, encoder, item, map), item), narrow)


@contextmanager
def open_job(source: Path, target: Path, options: Options) -> Iterator[Job]:
    """Check everything that can be checked before a byte is written.

    Raises SpecError: the source is missing or damaged, the target is there, the disk is too small, nothing
    fits the format, or the draft that is there is of another source or other options.
    """
    metadata = open_metadata(source, tokenizer_required=False)
    plan = make_plan(
        metadata,
        options.form,
        options.scope,
        calibrated=options.calibration is not None,
        shard_bytes=options.shard_bytes,
    )
    with open_draft(target, _identity(metadata, options)) as draft:
        _check_space(draft, plan)
        yield Job(metadata, plan, draft, options)


def _identity(metadata: Metadata, options: Options) -> dict[str, Any]:
    config = (metadata.path / "config.json").read_bytes()
    files = sorted({entry.file for entry in metadata.tensors.values()})
    stats = [(file.name, file.stat()) for file in files]
    return {
        "version": __version__,
        "config": hashlib.sha256(config).hexdigest(),
        "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "format": options.form.value,
        "scope": options.scope.value,
        "method": options.method,
        "calibration": options.calibration,
        "shard_bytes": options.shard_bytes,
    }


def _check_space(draft: Draft, plan: Plan) -> None:
    written = sum(done.num_bytes for done in draft.done.values())
    needed = plan.bytes_after - written + SPARE_BYTES
    free = shutil.disk_usage(draft.folder).free
    if free < needed:
        raise SpecError(
            f"{draft.folder.parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed",
            hint="give a folder on a larger disk",
        )
