"""The server: processes, Dynamo's HTTP frontend, and the clock."""

from rackscale.serve.options import ServeOptions
from rackscale.serve.server import serve

__all__ = ["ServeOptions", "serve"]
