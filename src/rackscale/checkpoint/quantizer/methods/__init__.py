"""Ways to choose a matrix's codes and block scales in NVFP4: pure maths, without files."""

from rackscale.checkpoint.quantizer.methods.encoded import Encoded, base_scale
from rackscale.checkpoint.quantizer.methods.gptq import damped, gptq
from rackscale.checkpoint.quantizer.methods.search import search, search_shared

__all__ = ["Encoded", "base_scale", "damped", "gptq", "search", "search_shared"]
