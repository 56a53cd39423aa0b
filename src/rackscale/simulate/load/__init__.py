"""What arrives when: drawn by a seed, or read from a trace."""

from rackscale.simulate.load.arrival import BLOCK_TOKENS, Arrival
from rackscale.simulate.load.azure import read_azure
from rackscale.simulate.load.closed_load import ClosedLoad
from rackscale.simulate.load.lengths import FixedLengths, Lengths, SeenLengths, UniformLengths
from rackscale.simulate.load.mooncake import read_mooncake
from rackscale.simulate.load.open_load import Diurnal, GammaBursts, OpenLoad, Poisson, open_load
from rackscale.simulate.load.sessions import Call, Pauses, Session, Sessions

__all__ = [
    "BLOCK_TOKENS",
    "Arrival",
    "Call",
    "ClosedLoad",
    "Diurnal",
    "FixedLengths",
    "GammaBursts",
    "Lengths",
    "OpenLoad",
    "Pauses",
    "Poisson",
    "SeenLengths",
    "Session",
    "Sessions",
    "UniformLengths",
    "open_load",
    "read_azure",
    "read_mooncake",
]
