"""Dynamo: a DynamoGraphDeployment (nvidia.com/v1beta1) of its frontend and a component for each pool.

The operator starts a component's command on every host of a group and adds what tells hosts apart
(deploy/operator/internal/dynamo/backend_{vllm,sglang,trtllm}.go at 003d1ee and 015d780 of ai-dynamo/dynamo):
so none of that is written here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rackscale.core import SpecError
from rackscale.plan.export.flag_table import Arguments, FlagTable, Value, load_flags
from rackscale.plan.export.result import Export, LaunchFile, Manifest
from rackscale.plan.export.setting import PoolSetting, Setting, names_of
from rackscale.plan.export.sglang import sglang_arguments, sglang_notes
from rackscale.plan.export.trtllm import trtllm_notes, trtllm_values
from rackscale.plan.export.vllm import vllm_arguments, vllm_notes
from rackscale.specs import Role

API_VERSION = "nvidia.com/v1beta1"
HTTP_PORT = 8000
# /dev/shm, as recipes/deepseek-r1 of ai-dynamo/dynamo have it: vllm/disagg/deploy_hopper_16gpu.yaml at
# ecd2979, and trtllm/disagg/wide_ep/gb200/deploy.yaml at fd20ef2, whose load balancer keeps all experts
# in the host's memory.
SHARED_MEMORY = "80Gi"
SHARED_MEMORY_OF_BALANCED_TRTLLM = "800Gi"
COMPONENT_TYPES = {Role.MIXED: "worker", Role.PREFILL: "prefill", Role.DECODE: "decode"}
MODES = {Role.MIXED: None, Role.PREFILL: "prefill", Role.DECODE: "decode"}
LONGEST_NAME = 24  # the operator appends components and roles, and has pod names within 63

# Options of `dynamo.trtllm` itself, which it reads before the engine's configuration.
TRTLLM_OPTIONS = {
    "tensor_parallel_size": "--tensor-parallel-size",
    "moe_expert_parallel_size": "--expert-parallel-size",
    "gpus_per_node": "--gpus-per-node",
    "enable_attention_dp": "--enable-attention-dp",
    "max_batch_size": "--max-batch-size",
    "max_num_tokens": "--max-num-tokens",
    "max_seq_len": "--max-seq-len",
    "kv_cache_config.free_gpu_memory_fraction": "--free-gpu-memory-fraction",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Backend:
    runtime: str
    arguments: Callable[[Setting, PoolSetting, FlagTable], Arguments]
    notes: Callable[[Setting], list[str]]


def _vllm(setting: Setting, pool: PoolSetting, table: FlagTable) -> Arguments:
    arguments = vllm_arguments(setting, pool, table)
    arguments.add_all({"--model": setting.checkpoint, "--served-model-name": setting.model.name})
    arguments.add_all({"--disaggregation-mode": MODES[pool.pool.role]})
    return arguments


def _sglang(setting: Setting, pool: PoolSetting, table: FlagTable) -> Arguments:
    arguments = sglang_arguments(setting, pool, table)
    arguments.add_all({"--served-model-name": setting.model.name, "--host": "0.0.0.0"})  # noqa: S104 (a pod)
    return arguments


def _trtllm(setting: Setting, pool: PoolSetting, table: FlagTable) -> Arguments:
    arguments = Arguments(table)
    arguments.add_all({"--model": setting.checkpoint, "--served-model-name": setting.model.name})
    arguments.add_all({"--disaggregation-mode": MODES[pool.pool.role]})
    values = trtllm_values(setting, pool)
    named: dict[str, Value | None] = {
        TRTLLM_OPTIONS.get(key, f"--trtllm.{key}"): value for key, value in values.items()
    }
    arguments.add_all(named)
    return arguments


BACKENDS: Mapping[str, _Backend] = {
    "vllm": _Backend(runtime="vllm-runtime", arguments=_vllm, notes=vllm_notes),
    "sglang": _Backend(runtime="sglang-runtime", arguments=_sglang, notes=sglang_notes),
    "trtllm": _Backend(runtime="tensorrtllm-runtime", arguments=_trtllm, notes=trtllm_notes),
}


def export_dynamo(
    setting: Setting, backend: str, *, name: str | None, image: str | None, namespace: str | None
) -> Export:
    """name: of the graph; None: the model's. image None: NVIDIA's of the table's version."""
    engine = BACKENDS[backend]
    frontend, table = load_flags("dynamo-frontend"), load_flags(f"dynamo-{backend}")
    flags = load_flags(backend)
    if setting.is_amd:
        raise SpecError(
            f"Dynamo's operator does not count {setting.system.title}'s GPUs",
            hint="give --to vllm or --to sglang",
        )
    name = graph_name(setting.model.name) if name is None else name
    if graph_name(name) != name:
        raise SpecError(f"--name {name!r} is no graph's name", hint=f"give {graph_name(name)}, say")
    image = f"nvcr.io/nvidia/ai-dynamo/{engine.runtime}:{table.version}" if image is None else image
    notes = _notes(setting, engine)
    components = [_frontend(image, frontend)]
    for component, pool in zip(names_of(setting.pools), setting.pools, strict=True):
        arguments = engine.arguments(setting, pool, table)
        components.append(_component(component, pool, image, table, arguments))
    metadata = {"name": name, **({} if namespace is None else {"namespace": namespace})}
    graph: Manifest = {
        "apiVersion": API_VERSION,
        "kind": "DynamoGraphDeployment",
        "metadata": metadata,
        "spec": {"backendFramework": backend, "components": components},
    }
    versions = {
        frontend.program: frontend.version,
        table.program: table.version,
        flags.program: flags.version,
    }
    comments = (
        f"Flags are those of {', '.join(f'{key} {value}' for key, value in versions.items())}.",
        *notes,
    )
    return Export(
        target="dynamo",
        backend=backend,
        files=(LaunchFile(name=f"{name}.yaml", comments=comments, documents=(graph,)),),
        notes=tuple(notes),
        pools=tuple(pool.placement for pool in setting.pools),
        versions=versions,
    )


def graph_name(text: str) -> str:
    """The name of a graph that a text suggests."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().rpartition("/")[2])[:LONGEST_NAME].strip("-") or "plan"


def _notes(setting: Setting, engine: _Backend) -> list[str]:
    notes = [
        *engine.notes(setting),
        f"Give the pods {setting.checkpoint}: a volume, or a Hugging Face token.",
    ]
    for pool in setting.pools:
        if pool.hosts > 1 and pool.attentions > 1 and pool.pool.tp > pool.gpus:
            notes.append(
                f"The {pool.pool.role} pool's attentions span hosts: the operator starts several of them in a"
                " group only where each is on one host."
            )
        if pool.hosts > 1 and setting.system.domain_chips > pool.gpus:
            notes.append(
                f"A {pool.pool.role} group's hosts belong into one NVLink domain: add your cluster's"
                " topologyConstraint, and a ComputeDomain with a resource claim for its pods."
            )
    return notes


def _frontend(image: str, table: FlagTable) -> Manifest:
    arguments = Arguments(table)
    arguments.add("--http-port", HTTP_PORT)
    container = _container(image, table, arguments)
    return {
        "name": "frontend",
        "type": "frontend",
        "replicas": 1,
        "podTemplate": {"spec": {"containers": [container]}},
    }


def _component(name: str, pool: PoolSetting, image: str, table: FlagTable, arguments: Arguments) -> Manifest:
    container = _container(image, table, arguments)
    balanced = table.name == "dynamo-trtllm" and pool.redundant > 0
    container["resources"] = {"limits": {"nvidia.com/gpu": str(pool.gpus)}}
    component: dict[str, Any] = {
        "name": name,
        "type": COMPONENT_TYPES[pool.pool.role],
        "replicas": pool.pool.groups,
        "sharedMemorySize": SHARED_MEMORY_OF_BALANCED_TRTLLM if balanced else SHARED_MEMORY,
    }
    if pool.hosts > 1:
        component["multinode"] = {"nodeCount": pool.hosts}
    component["podTemplate"] = {"spec": {"containers": [container]}}
    return component


def _container(image: str, table: FlagTable, arguments: Arguments) -> Manifest:
    return {
        "name": "main",  # what the operator looks for
        "image": image,
        "command": table.program.split(),
        "args": [str(word) for words in arguments.words() for word in words],
    }
