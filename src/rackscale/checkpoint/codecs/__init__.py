"""Formats of weights: how one logical matrix lies in a checkpoint's tensors."""

from rackscale.checkpoint.codecs.codec import Codec, Part, Scheme
from rackscale.checkpoint.codecs.detect import detect
from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.checkpoint.codecs.plain import Plain

__all__ = ["Codec", "Format", "Packed", "Part", "Plain", "Scheme", "detect"]
