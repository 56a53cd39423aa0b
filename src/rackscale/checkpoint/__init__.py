"""Hugging Face folders: files to tensors and specs.

`open_metadata` needs no torch, for processes that only route; `open_checkpoint` loads it.
"""

from typing import TYPE_CHECKING, Any

from rackscale.checkpoint.generation import GenerationDefaults
from rackscale.checkpoint.metadata import Metadata, open_metadata
from rackscale.checkpoint.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rackscale.checkpoint.checkpoint import Checkpoint, open_checkpoint
    from rackscale.checkpoint.conversion import dequantize, quantize

__all__ = [
    "Checkpoint",
    "GenerationDefaults",
    "Metadata",
    "Tokenizer",
    "dequantize",
    "open_checkpoint",
    "open_metadata",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """What loads torch, on demand."""
    if name in {"Checkpoint", "open_checkpoint"}:
        from rackscale.checkpoint import checkpoint  # noqa: PLC0415 (loads torch)

        return getattr(checkpoint, name)
    if name in {"dequantize", "quantize"}:
        from rackscale.checkpoint import conversion  # noqa: PLC0415 (loads torch)

        return getattr(conversion, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
