"""How frontends and workers find each other."""

import os
import re
from enum import StrEnum

from rackscale.core import SpecError


class Discovery(StrEnum):
    """Where Dynamo writes down who is there."""

    MEM = "mem"
    FILE = "file"
    ETCD = "etcd"


NEEDED = {
    Discovery.FILE: ("DYN_FILE_KV", "/shared/folder"),
    Discovery.ETCD: ("ETCD_ENDPOINTS", "http://H:2379"),
}


def check_discovery(discovery: Discovery) -> None:
    """Raises SpecError where the environment does not say where the others are."""
    variable, example = NEEDED.get(discovery, (None, None))
    if variable is not None and not os.environ.get(variable):
        raise SpecError(
            f"--discovery {discovery} without {variable}", hint=f"set it, for example {variable}={example}"
        )


def endpoint_of(model: str) -> str:
    """Where a model's workers are found. Dynamo takes all workers at one endpoint for equal."""
    return f"rackscale.{re.sub('[^a-z0-9]+', '-', model.lower()).strip('-') or 'model'}.generate"
