"""Decoder-only language models: attention and experts over a paged cache."""

from rackscale.runtime.kernels.interface import AfterLayer
from rackscale.runtime.model.model import LoadedModel, Model, Progress, load_model, share_model

__all__ = ["AfterLayer", "LoadedModel", "Model", "Progress", "load_model", "share_model"]
