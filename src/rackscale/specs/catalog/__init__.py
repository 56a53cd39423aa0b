"""The catalog: chips, systems and models as published, each number with its source and confidence.

A name of the catalog or the path of a file of one's own gives a spec in base units (FLOP/s, bytes, bytes
per second, watts, dollars); its `facts` keep what the sources say, unit and all. Nothing here is measured
by this project, and nothing is fitted.
"""

from rackscale.specs.catalog.chip import ChipSpec, load_chip
from rackscale.specs.catalog.fact import Fact
from rackscale.specs.catalog.model import CatalogModel, load_model
from rackscale.specs.catalog.system import SystemSpec, load_system
from rackscale.specs.catalog.table import KINDS, closest, is_path, names

__all__ = [
    "KINDS",
    "CatalogModel",
    "ChipSpec",
    "Fact",
    "SystemSpec",
    "closest",
    "is_path",
    "load_chip",
    "load_model",
    "load_system",
    "names",
]
