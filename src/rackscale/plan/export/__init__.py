"""Launch files of other engines for a planned deployment: data, for a verb to write down.

Every flag is checked against a table of those that the engine has (`flags/`, read in its source), and what
an engine cannot say is said in a note.
"""

from rackscale.core import SpecError
from rackscale.plan.export.dynamo import BACKENDS, export_dynamo
from rackscale.plan.export.flag_table import FlagTable, load_flags
from rackscale.plan.export.result import Export, LaunchFile, PoolHosts
from rackscale.plan.export.setting import setting_of
from rackscale.plan.export.sglang import export_sglang
from rackscale.plan.export.trtllm import export_trtllm
from rackscale.plan.export.vllm import export_vllm
from rackscale.plan.types import PlannedDeployment
from rackscale.specs.catalog import closest

TARGETS = ("dynamo", "sglang", "trtllm", "vllm")
DEFAULT_BACKEND = "trtllm"

__all__ = [
    "BACKENDS",
    "DEFAULT_BACKEND",
    "TARGETS",
    "Export",
    "FlagTable",
    "LaunchFile",
    "PoolHosts",
    "export_plan",
    "load_flags",
]


def export_plan(
    planned: PlannedDeployment,
    target: str,
    *,
    backend: str = DEFAULT_BACKEND,
    checkpoint: str | None = None,
    name: str | None = None,
    image: str | None = None,
    namespace: str | None = None,
) -> Export:
    """The launch files of one of `TARGETS`. backend, name, image and namespace: of Dynamo's graph.

    Raises SpecError where target, backend, model or system is unknown, or where the target cannot place
    the plan at all.
    """
    if backend not in BACKENDS:
        raise SpecError(f"--backend {backend} is not known", hint=closest(backend, sorted(BACKENDS), "give"))
    setting = setting_of(planned, checkpoint=checkpoint)
    match target:
        case "dynamo":
            return export_dynamo(setting, backend, name=name, image=image, namespace=namespace)
        case "sglang":
            return export_sglang(setting)
        case "trtllm":
            return export_trtllm(setting)
        case "vllm":
            return export_vllm(setting)
    raise SpecError(f"--to {target} is not known", hint=closest(target, TARGETS, "give"))
