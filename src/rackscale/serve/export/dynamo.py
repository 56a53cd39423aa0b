"""A deployment as a DynamoGraphDeployment (nvidia.com/v1beta1) and what it needs beside it.

One pod of type `frontend` runs `rackscale serve`: engine, gateway and Dynamo's frontend. If all ranks fit
on one host they are there too. If not, each pool is a component whose pods run `rackscale host`; a host
joins the engine, which deals ranks to hosts in the order that they come in: so any host must do for any
ranks, and all ask for the same.
"""

from dataclasses import replace
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

from rackscale.core import SpecError
from rackscale.serve.export.footprint import Footprint, Sizes, host_of_ranks, largest, with_engine
from rackscale.serve.export.options import ExportOptions
from rackscale.specs import DeploymentFile, GroupEntry, Role, format_deployment

API_VERSION = "nvidia.com/v1beta1"
MOST_COMPONENTS = 25  # the schema's
HTTP_PORT = 8000
JOIN_PORT = 7600
CONFIG_FOLDER = "/etc/rackscale"
CONFIG_FILE = "deployment.toml"
MODELS_FOLDER = "/models"
DRAIN_MARGIN_S = 45  # `serve --drain-s` and some
COMPONENT_TYPES = {Role.MIXED: "worker", Role.PREFILL: "prefill", Role.DECODE: "decode"}

Manifest = dict[str, Any]


def dynamo_manifests(file: DeploymentFile, options: ExportOptions, sizes: Sizes) -> list[Manifest]:
    """ConfigMap, Service if hosts join, and graph: in the order in which to create them.

    Raises SpecError where a name is none, or the ranks do not fill hosts evenly.
    """
    options.check()
    model = f"{MODELS_FOLDER}/{PurePath(file.model).name}"
    manifests = [_config_map(replace(file, model=model), options)]
    if options.spans_hosts(file):
        num_hosts = sum(group.count * options.hosts_of(group) for group in file.groups)
        manifests.append(_join_service(options))
        components = [
            _engine(model, options, with_engine(None), num_hosts),
            *_pools(file, model, options, sizes),
        ]
    else:
        components = [_engine(model, options, with_engine(_only_host(file, sizes)), 0)]
    if len(components) > MOST_COMPONENTS:
        raise SpecError(
            f"{len(components)} components are more than the {MOST_COMPONENTS} of a graph",
            hint="write groups that are alike as one, with a count",
        )
    return [*manifests, _object("DynamoGraphDeployment", "", options, spec={"components": components})]


def _only_host(file: DeploymentFile, sizes: Sizes) -> Footprint:
    shared = sum(
        group.count * group.num_ranks * gib for group, gib in zip(file.groups, sizes.shared_gib, strict=True)
    )
    return host_of_ranks(file.num_ranks, shared, sizes.weights_gib)


def _pools(file: DeploymentFile, model: str, options: ExportOptions, sizes: Sizes) -> list[Manifest]:
    hosts: list[Footprint] = []
    for group, gib in zip(file.groups, sizes.shared_gib, strict=True):
        ranks = group.num_ranks // options.hosts_of(group)
        hosts.append(host_of_ranks(ranks, ranks * gib, sizes.weights_gib))
    host = largest(hosts)
    names = _names([COMPONENT_TYPES[group.role] for group in file.groups])
    return [_pool(name, group, model, options, host) for name, group in zip(names, file.groups, strict=True)]


def _names(types: list[str]) -> list[str]:
    """A component's name is its type; where a pool has groups of several sizes, they are numbered."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for kind in types:
        seen[kind] = seen.get(kind, 0) + 1
        names.append(kind if types.count(kind) == 1 else f"{kind}-{seen[kind]}")
    return names


def _engine(model: str, options: ExportOptions, host: Footprint, num_hosts: int) -> Manifest:
    arguments = ["serve", model, "--deployment", f"{CONFIG_FOLDER}/{CONFIG_FILE}"]
    arguments += ["--host", "0.0.0.0", "--port", str(HTTP_PORT)]  # noqa: S104 (a pod's own address)
    ports = [{"name": "http", "containerPort": HTTP_PORT}]
    if num_hosts:
        arguments += ["--hosts", str(num_hosts), "--listen", f"0.0.0.0:{JOIN_PORT}"]
        ports.append({"name": "join", "containerPort": JOIN_PORT})
    container = {
        **_container(arguments, options, host),
        "ports": ports,
        # /live answers at once and as long as the process does; /health once the model does.
        "livenessProbe": {**_http_get("/live"), "periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {**_http_get("/health"), "periodSeconds": 5, "failureThreshold": 1},
    }
    config = {"name": "deployment", "configMap": {"name": f"{options.name}-deployment"}}
    container["volumeMounts"] = [
        {"name": "deployment", "mountPath": CONFIG_FOLDER, "readOnly": True},
        *container["volumeMounts"],
    ]
    return _component("frontend", "frontend", 1, host, container, [config, *_volumes(options)])


def _pool(name: str, group: GroupEntry, model: str, options: ExportOptions, host: Footprint) -> Manifest:
    arguments = ["host", model, "--join", f"{options.name}-join:{JOIN_PORT}"]
    # A host has no HTTP, where the operator's own probes would look for it. It ends when it has lost
    # the engine, and is then started again.
    alive = {"exec": {"command": ["sh", "-c", "kill -0 1"]}, "periodSeconds": 10}
    container = {
        **_container(arguments, options, host),
        "startupProbe": alive,
        "livenessProbe": alive,
        "readinessProbe": alive,
    }
    kind = COMPONENT_TYPES[group.role]
    component = _component(name, kind, group.count, host, container, _volumes(options))
    if (num_hosts := options.hosts_of(group)) > 1:
        component["multinode"] = {"nodeCount": num_hosts}
    return component


def _component(
    name: str, kind: str, replicas: int, host: Footprint, container: Manifest, volumes: list[Manifest]
) -> Manifest:
    pod = {"terminationGracePeriodSeconds": DRAIN_MARGIN_S, "containers": [container]}
    return {
        "name": name,
        "type": kind,
        "replicas": replicas,
        # The operator takes an image's tag for Dynamo's version unless it is told.
        "runtimeVersionOverride": version("ai-dynamo-runtime"),
        "sharedMemorySize": f"{host.shared_gib}Gi",
        "podTemplate": {"spec": {**pod, **({"volumes": volumes} if volumes else {})}},
    }


def _container(arguments: list[str], options: ExportOptions, host: Footprint) -> Manifest:
    mounts = [{"name": "models", "mountPath": MODELS_FOLDER, "readOnly": True}]
    return {
        "name": "main",  # what the operator looks for
        "image": options.image,
        "command": ["rackscale"],
        "args": arguments,
        "resources": {"requests": {"cpu": str(host.cpus), "memory": f"{host.memory_gib}Gi"}},
        "volumeMounts": mounts if options.model_claim else [],
    }


def _volumes(options: ExportOptions) -> list[Manifest]:
    if options.model_claim is None:
        return []
    claim = {"claimName": options.model_claim, "readOnly": True}
    return [{"name": "models", "persistentVolumeClaim": claim}]


def _http_get(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": HTTP_PORT}, "timeoutSeconds": 3}


def _config_map(file: DeploymentFile, options: ExportOptions) -> Manifest:
    return _object("ConfigMap", "-deployment", options, data={CONFIG_FILE: format_deployment(file)})


def _join_service(options: ExportOptions) -> Manifest:
    """Where hosts find the engine. It is not ready before they have joined it."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {
            "nvidia.com/dynamo-graph-deployment-name": options.name,
            "nvidia.com/dynamo-component-type": "frontend",
        },
        "ports": [{"name": "join", "port": JOIN_PORT, "targetPort": JOIN_PORT}],
    }
    return _object("Service", "-join", options, spec=spec)


def _object(kind: str, suffix: str, options: ExportOptions, **content: Any) -> Manifest:
    metadata = {"name": options.name + suffix}
    if options.namespace is not None:
        metadata["namespace"] = options.namespace
    api = API_VERSION if kind == "DynamoGraphDeployment" else "v1"
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}
