"""The forward pass, from tokens to logits, of every family that a `ModelSpec` can describe."""

from rackscale.runtime.model.model import Model, Progress

__all__ = ["Model", "Progress"]
