"""From a checkpoint to a quantised one. Loads torch."""

from rackscale.checkpoint.quantizer.encoder import Encoder
from rackscale.checkpoint.quantizer.job import Job, Method, Options, Result, open_job
from rackscale.checkpoint.quantizer.layouts import OutputFormat
from rackscale.checkpoint.quantizer.round_to_nearest import RoundedEncoder, quantize_packed
from rackscale.checkpoint.quantizer.scope import Scope, groups_of
from rackscale.checkpoint.quantizer.search_encoder import SearchEncoder

__all__ = [
    "Encoder",
    "Job",
    "Method",
    "Options",
    "OutputFormat",
    "Result",
    "RoundedEncoder",
    "Scope",
    "SearchEncoder",
    "groups_of",
    "open_job",
    "quantize_packed",
]
