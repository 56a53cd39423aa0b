"""What is written for Dynamo against the fields that its schema has."""

import json
import re
from pathlib import Path

SCHEMA = json.loads((Path(__file__).parents[1] / "golden" / "dynamo" / "v1beta1.json").read_text())
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"[0-9]+(Gi)?")


def check_manifests(manifests):
    for manifest in manifests:
        api, kind = SCHEMA["kinds"][manifest["kind"]]
        assert manifest["apiVersion"] == api
        check_struct(manifest, SCHEMA["types"][kind], manifest["kind"])
        if manifest["kind"] == "DynamoGraphDeployment":
            for component in manifest["spec"]["components"]:
                check_pods(component)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(names)) == len(names)


def check_pods(component):
    pod = component["podTemplate"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["main"]
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for mount in pod["containers"][0].get("volumeMounts", []):
        assert mount["name"] in volumes
    assert "multinode" not in component or component["type"] in ("worker", "prefill", "decode")


def check_struct(value, struct, where):
    assert isinstance(value, dict), where
    assert value.keys() >= set(struct["required"]), where
    for key, item in value.items():
        assert key in struct["allowed"], f"{where}.{key}"
        check_value(item, struct["allowed"][key], f"{where}.{key}")
    for key, choices in struct.get("enum", {}).items():
        assert value.get(key, choices[0]) in choices, where
    for key, pattern in struct.get("pattern", {}).items():
        assert key not in value or re.fullmatch(pattern, value[key]), f"{where}.{key}"
    for key, longest in struct.get("longest", {}).items():
        assert 1 <= len(value[key]) <= longest, f"{where}.{key}"
    for key, least in struct.get("least", {}).items():
        assert value.get(key, least) >= least, f"{where}.{key}"
    for key, most in struct.get("most", {}).items():
        assert len(value.get(key, [])) <= most, f"{where}.{key}"
    for key, part in struct.get("unique", {}).items():
        parts = [item[part].lower() for item in value.get(key, [])]
        assert len(set(parts)) == len(parts), f"{where}.{key}"


def check_value(value, kind, where):
    if kind.startswith("["):
        assert isinstance(value, list), where
        for number, item in enumerate(value):
            check_value(item, kind[1:-1], f"{where}[{number}]")
        return
    match kind:
        case "any":
            raise AssertionError(f"{where} is written, but its fields are not in the table")
        case "string":
            assert isinstance(value, str), where
        case "label":
            assert LABEL.fullmatch(value), where
        case "int":
            assert type(value) is int, where
        case "bool":
            assert type(value) is bool, where
        case "quantity":
            assert QUANTITY.fullmatch(value), where
        case "strings" | "quantities":
            assert all(isinstance(item, str) for pair in value.items() for item in pair), where
            assert kind == "strings" or all(QUANTITY.fullmatch(item) for item in value.values()), where
        case _:
            check_struct(value, SCHEMA["types"][kind], where)
