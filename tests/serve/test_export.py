"""Manifests against the schema's fields, and against what the verbs and the cluster need of them."""

from pathlib import Path

import pytest
import yaml
from dynamo_schema import SCHEMA, check_manifests, check_struct
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cli.yaml_text import yaml_text
from rackscale.core import SpecError
from rackscale.serve.export import ExportOptions, Sizes, dynamo_manifests, name_of, sizes_of
from rackscale.specs import DeploymentFile, GroupEntry, Role, parse_deployment

ROOT = Path(__file__).parents[2]

MIXED = DeploymentFile(model="somewhere/Austen_MoE", groups=(GroupEntry(num_ranks=4),))
POOLS = DeploymentFile(
    model="m",
    groups=(
        GroupEntry(role=Role.PREFILL, num_ranks=2, count=3),
        GroupEntry(role=Role.DECODE, num_ranks=8, kv_gib=2.0),
        GroupEntry(role=Role.DECODE, num_ranks=4),
    ),
)


def manifests_of(file, **given):
    options = ExportOptions(
        **{"name": name_of(file.model), "image": "registry.example/rackscale:0.1.0", **given}
    )
    return dynamo_manifests(file, options, sizes_of(file, weights_gib=10.0))


def components_of(manifests):
    return {component["name"]: component for component in manifests[-1]["spec"]["components"]}


def container_of(component):
    (container,) = component["podTemplate"]["spec"]["containers"]
    return container


def test_the_table_knows_its_types():
    for struct in SCHEMA["types"].values():
        for kind in struct["allowed"].values():
            bare = kind.strip("[]")
            known = ("any", "string", "strings", "label", "int", "bool", "quantity", "quantities")
            assert bare in known or bare in SCHEMA["types"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "deployments").glob("*.toml")), ids=lambda p: p.stem
)
@pytest.mark.parametrize("ranks_per_host", [None, 1, 2, 4, 64])
def test_examples_fit_the_schema(path, ranks_per_host, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = parse_deployment(path.read_text(), source=path.name)
    options = ExportOptions(
        name="graph", image="rackscale", namespace="ns", ranks_per_host=ranks_per_host, model_claim="models"
    )
    check_manifests(dynamo_manifests(file, options, sizes_of(file)))


@pytest.mark.parametrize(
    "change",
    [
        {"services": []},
        {"components": [{"type": "worker"}]},
        {"components": [{"name": "a", "type": "engine"}]},
        {"components": [{"name": "a_b"}]},
        {"components": [{"name": "a"}, {"name": "A"}]},
        {"components": [{"name": "a", "replicas": "1"}]},
        {"components": [{"name": "a", "multinode": {"nodeCount": 1}}]},
        {"components": [{"name": "a", "sharedMemorySize": "1 GiB"}]},
        {"components": [{"name": "a", "podTemplate": {"spec": {}}}]},
        {"components": [{"name": f"a{number}"} for number in range(26)]},
        {"restart": {"id": "1"}},
    ],
)
def test_what_does_not_fit_is_found(change):
    with pytest.raises(AssertionError):
        check_struct(change, SCHEMA["types"]["GraphSpec"], "spec")


groups = st.builds(
    GroupEntry,
    role=st.sampled_from(Role),
    count=st.integers(1, 9),
    num_ranks=st.sampled_from([1, 2, 4, 8, 16, 72]),
    kv_gib=st.none() | st.floats(0.01, 100),
)


@given(
    file=st.builds(
        DeploymentFile, model=st.text(min_size=1), groups=st.lists(groups, min_size=1, max_size=6).map(tuple)
    ),
    ranks_per_host=st.sampled_from([None, 1, 2, 4, 8]),
    namespace=st.none() | st.just("ns"),
    model_claim=st.none() | st.just("models"),
)
def test_whatever_is_exported_fits_the_schema(file, ranks_per_host, namespace, model_claim):
    file_sizes = Sizes(weights_gib=1.0, shared_gib=tuple(1.0 for _ in file.groups))
    options = ExportOptions(
        name=name_of(file.model),
        image="rackscale:1",
        namespace=namespace,
        ranks_per_host=ranks_per_host,
        model_claim=model_claim,
    )
    manifests = dynamo_manifests(file, options, file_sizes)
    check_manifests(manifests)
    assert list(yaml.safe_load_all(yaml_text(manifests))) == manifests


def test_one_host_has_it_all():
    manifests = manifests_of(MIXED)
    assert [manifest["kind"] for manifest in manifests] == ["ConfigMap", "DynamoGraphDeployment"]
    assert manifests[-1]["metadata"] == {"name": "austen-moe"}
    (component,) = components_of(manifests).values()
    assert component["type"] == "frontend"
    container = container_of(component)
    assert " ".join([*container["command"], *container["args"]]) == (
        "rackscale serve /models/Austen_MoE --deployment /etc/rackscale/deployment.toml"
        " --host 0.0.0.0 --port 8000"
    )
    assert container["livenessProbe"]["httpGet"] == {"path": "/live", "port": 8000}
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8000}
    # 4 ranks share 4 GiB of KV and have 1 of boxes each; 10 of weights, 1 a process, 2 the engine
    assert component["sharedMemorySize"] == "8Gi"
    assert container["resources"] == {"requests": {"cpu": "6", "memory": "24Gi"}}


def test_the_config_map_is_the_file_with_the_container_s_folder():
    config = manifests_of(MIXED, namespace="ns")[0]
    assert config["metadata"] == {"name": "austen-moe-deployment", "namespace": "ns"}
    file = parse_deployment(config["data"]["deployment.toml"], source="config map")
    assert file.model == "/models/Austen_MoE"
    assert file.groups == MIXED.groups


def test_many_hosts_join_the_engine():
    manifests = manifests_of(POOLS, ranks_per_host=2, model_claim="weights")
    assert [manifest["kind"] for manifest in manifests] == ["ConfigMap", "Service", "DynamoGraphDeployment"]
    service = manifests[1]
    # The engine is ready when its hosts have joined, and they find it by this service: were it to wait
    # for the engine, all would wait for ever.
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["metadata"]["name"] == "m-join"
    assert service["spec"]["selector"]["nvidia.com/dynamo-graph-deployment-name"] == "m"
    components = components_of(manifests)
    shape = {
        name: (component["type"], component["replicas"], component.get("multinode"))
        for name, component in components.items()
    }
    assert shape == {
        "frontend": ("frontend", 1, None),
        "prefill": ("prefill", 3, None),
        "decode-1": ("decode", 1, {"nodeCount": 4}),
        "decode-2": ("decode", 1, {"nodeCount": 2}),
    }
    assert container_of(components["frontend"])["args"][-4:] == ["--hosts", "9", "--listen", "0.0.0.0:7600"]
    assert container_of(components["frontend"])["resources"]["requests"] == {"cpu": "2", "memory": "3Gi"}
    for name in ("prefill", "decode-1", "decode-2"):
        container = container_of(components[name])
        assert container["args"] == ["host", "/models/m", "--join", "m-join:7600"]
        assert container["resources"]["requests"] == {"cpu": "2", "memory": "18Gi"}  # alike: any may get any
        assert components[name]["sharedMemorySize"] == "6Gi"
        assert container["volumeMounts"] == [{"name": "models", "mountPath": "/models", "readOnly": True}]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_a_group_of_fewer_ranks_has_a_host_of_its_own():
    components = components_of(manifests_of(POOLS, ranks_per_host=4))
    assert components["prefill"]["replicas"] == 3
    assert "multinode" not in components["decode-2"]
    assert "6" in container_of(components["frontend"])["args"]


def test_a_model_that_is_here_is_measured(bundled_model):
    file = DeploymentFile(
        model=str(bundled_model),
        groups=(GroupEntry(num_ranks=2, num_blocks=1000, count=2), GroupEntry(num_blocks=100)),
    )
    sizes = sizes_of(file)
    assert sizes.weights_gib == pytest.approx(16e6 / 2**30, rel=0.1)
    # 5 layers of 80 elements, 16 tokens a block; 512 tokens of 256 elements to and from each of two ranks
    assert sizes.shared_gib[0] * 2**30 == 1000 * 16 * 5 * 80 * 4 + 2 * 2 * 512 * 256 * 4
    assert sizes.shared_gib[1] * 2**30 == 100 * 16 * 5 * 80 * 4 + 2 * 1 * 512 * 256 * 4
    with pytest.raises(SpecError, match="do not hold one sequence"):
        sizes_of(DeploymentFile(model=str(bundled_model), groups=(GroupEntry(num_blocks=1),)))


def test_a_model_that_is_not_here_must_be_told_of():
    with pytest.raises(SpecError, match="give --weights-gib"):
        sizes_of(MIXED)
    with pytest.raises(SpecError, match="give kv_gib"):
        sizes_of(DeploymentFile(model="m", groups=(GroupEntry(num_blocks=64),)), weights_gib=1.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "A"}, "--name 'A' is no name"),
        ({"name": "a" * 25}, "at most 24"),
        ({"namespace": "-"}, "--namespace '-' is no name"),
        ({"model_claim": ""}, "--model-claim '' is no name"),
        ({"image": ""}, "--image '' is no image"),
        ({"image": "a b"}, "--image 'a b' is no image"),
        ({"image": "a\n"}, "is no image"),
        ({"ranks_per_host": 3}, "--ranks-per-host 3 does not divide a group of 8 ranks"),
    ],
)
def test_options_that_cannot_be(given, says):
    with pytest.raises(SpecError) as error:
        manifests_of(POOLS, **given)
    assert says in str(error.value)


def test_more_components_than_a_graph_has():
    file = DeploymentFile(model="m", groups=tuple(GroupEntry(num_ranks=n + 1) for n in range(25)))
    with pytest.raises(SpecError, match="26 components are more than the 25"):
        manifests_of(file, ranks_per_host=25)


@pytest.mark.parametrize(
    ("model", "name"),
    [("models/austen-moe", "austen-moe"), ("a/Kimi K2.Thinking/", "kimi-k2-thinking"), ("ü", "rackscale")],
)
def test_names(model, name):
    assert name_of(model) == name
