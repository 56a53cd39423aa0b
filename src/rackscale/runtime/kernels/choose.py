"""Which kernels run."""

import importlib
import logging

from rackscale.core import SpecError
from rackscale.runtime.kernels.interface import Kernels
from rackscale.runtime.kernels.reference import Reference

_LOG = logging.getLogger(__name__)


def choose(name: str = "auto") -> Kernels:
    """auto: native where it was built, otherwise reference, and a line in the log that says why.

    Raises SpecError where native is asked for and was not built, or the name is unknown.
    """
    if name == "reference":
        return Reference()
    if name not in {"auto", "native"}:
        raise SpecError(f"kernels {name!r}", hint="give auto, native or reference")
    try:
        native = importlib.import_module("rackscale.runtime.kernels.native")
    except ImportError as error:
        if name == "native":
            raise SpecError(
                f"the native kernels are not built ({error})",
                hint="install with a C++ compiler and CMake at hand, or give --kernels reference",
            ) from None
        _LOG.warning("native kernels are not built (%s): torch computes, more slowly", error)
        return Reference()
    kernels: Kernels = native.Native()
    return kernels
