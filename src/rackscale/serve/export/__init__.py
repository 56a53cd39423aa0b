"""Manifests that make a cluster run a deployment: plain objects."""

from rackscale.serve.export.dynamo import dynamo_manifests
from rackscale.serve.export.footprint import Sizes, sizes_of
from rackscale.serve.export.options import ExportOptions, name_of

__all__ = ["ExportOptions", "Sizes", "dynamo_manifests", "name_of", "sizes_of"]
