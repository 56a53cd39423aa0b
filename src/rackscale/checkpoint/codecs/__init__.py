"""Formats of weights: how one logical matrix lies in a checkpoint's tensors."""

from rackscale.checkpoint.codecs.codec import Codec, Part
from rackscale.checkpoint.codecs.detect import detect
from rackscale.checkpoint.codecs.plain import Plain

__all__ = ["Codec", "Part", "Plain", "detect"]
