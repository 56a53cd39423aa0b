"""Every target for every kind of plan: flags that exist, all chips, and the engines' own rules."""

import json
import re
import shlex
from math import ceil
from pathlib import Path

import pytest
from dynamo_schema import check_manifests

from rackscale.core import SpecError
from rackscale.plan.export import TARGETS, export_plan, load_flags
from rackscale.plan.types import Band, PlannedDeployment, PlanPoint, PoolPlan
from rackscale.specs import Role
from rackscale.specs.catalog import load_model


def band(value):
    return Band(value=value, low=0.9 * value, high=1.1 * value)


def planned(*pools, model="kimi-k2-thinking", system="gb200-nvl72", weights="nvfp4", isl=8192, osl=1024):
    chips = sum(pool.chips for pool in pools)
    point = PlanPoint(
        tokens_per_s_per_chip=band(4000.0),
        output_tokens_per_s_per_chip=440.0,
        tpot_s=band(0.025),
        ttft_s=band(1.5),
        ttft_p99_s=3.0,
        tpot_p99_s=0.03,
        tokens_per_s_per_mw=1e6,
        usd_per_mtok=0.2,
        chips=chips,
        concurrency=2048.0,
    )
    return PlannedDeployment(
        model=model,
        system=system,
        isl=isl,
        osl=osl,
        weights=weights,
        pools=pools,
        point=point,
        binding="HBM for KV",
        operators={},
        memory={},
    )


def prefill(groups, ranks, **given):
    given = {"tp": 1, "ep": ranks, "batch_tokens": 16384, **given}
    return PoolPlan(role=Role.PREFILL, groups=groups, ranks=ranks, **given)


def decode(groups, ranks, **given):
    given = {"tp": 1, "ep": ranks, "batch_per_rank": 63.5, **given}
    return PoolPlan(role=Role.DECODE, groups=groups, ranks=ranks, **given)


def mixed(groups, ranks, **given):
    given = {"tp": ranks, "ep": 1, "batch_per_rank": 64.0, "batch_tokens": 8192, **given}
    return PoolPlan(role=Role.MIXED, groups=groups, ranks=ranks, **given)


PLANS = {
    "mixed TP8": planned(mixed(2, 8), model="deepseek-r1", system="hgx-h200", weights="fp8"),
    "mixed TP8 EP8": planned(mixed(1, 8, ep=8), model="kimi-k2-instruct", system="hgx-b200", weights="fp8"),
    "mixed TP8 EP4": planned(mixed(1, 8, ep=4), model="qwen3-235b-a22b", system="hgx-h100", weights="bf16"),
    "mixed DEP8": planned(mixed(3, 8, tp=1, ep=8), system="hgx-b300"),
    "one rank": planned(mixed(4, 1), model="gpt-oss-20b", system="hgx-h100", weights="mxfp4"),
    "DEP16 and DEP32": planned(
        prefill(2, 16, micro_batches=2),
        decode(1, 32, micro_batches=2),
        model="deepseek-r1",
        system="hgx-h200",
        weights="fp8",
    ),
    "int4": planned(
        prefill(3, 8), decode(1, 16, tp=2, batch_per_rank=300.0), system="hgx-h200", weights="int4"
    ),
    "EP72 with redundancy": planned(prefill(3, 8), decode(1, 72, redundant_experts=48, micro_batches=2)),
    "EP72 without": planned(prefill(1, 8), decode(1, 72)),
    "EP36 twice": planned(prefill(2, 6), prefill(1, 12), decode(2, 36, redundant_experts=12)),
    "two domains": planned(prefill(9, 8), decode(1, 144, redundant_experts=48), system="gb300-nvl72"),
    "TP16": planned(mixed(1, 16), model="deepseek-v3", system="hgx-h100", weights="fp8"),
    "a tray's share": planned(mixed(1, 18, tp=1, ep=18, redundant_experts=12)),
}
AMD = planned(
    prefill(1, 8, micro_batches=2),
    decode(1, 16, micro_batches=2),
    model="deepseek-r1",
    system="mi355x",
    weights="fp8",
)

CASES = [("vllm", "vllm"), ("sglang", "sglang"), ("trtllm", "trtllm")]
CASES += [("dynamo", backend) for backend in ("vllm", "sglang", "trtllm")]
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
every_case = pytest.mark.parametrize(("target", "backend"), CASES, ids="-".join)


def export(plan, target, backend, **given):
    return export_plan(plan, target, **({"backend": backend} if target == "dynamo" else {}), **given)


def commands(exported):
    """Words of each command by the name of its pool, flags and values."""
    found = {}
    for file in exported.files:
        if file.script:
            joined = file.script.replace("\\\n", " ")
            lines = [line for line in joined.splitlines() if "--" in line]
            found[file.name.removesuffix(".sh")] = [word for line in lines for word in shlex.split(line)]
        elif exported.target == "dynamo":
            for component in file.documents[0]["spec"]["components"]:
                container = component["podTemplate"]["spec"]["containers"][0]
                found[component["name"]] = container["command"] + container["args"]
    return found


def value(words, flag, default=None, kind=int):
    return kind(words[words.index(flag) + 1]) if flag in words else default


def dotted(document, prefix=""):
    for key, item in document.items():
        if isinstance(item, dict):
            yield from dotted(item, f"{prefix}{key}.")
        else:
            yield prefix + key, item


def tables(target, backend, name):
    if target == "dynamo":
        return [load_flags("dynamo-frontend" if name == "frontend" else f"dynamo-{backend}")]
    if target == "sglang":
        return [load_flags("sglang-router" if name == "router" else "sglang")]
    return [load_flags({"vllm": "vllm", "trtllm": "trtllm-serve"}[target])]


@every_case
@every_plan
def test_flags_exist(plan, target, backend):
    exported = export(plan, target, backend)
    found = commands(exported)
    assert found
    for name, words in found.items():
        known = {flag for table in tables(target, backend, name) for flag in table.flags}
        flags = [word for word in words if re.match(r"--[a-z]", word)]
        assert flags
        assert set(flags) <= known
        repeatable = {"--prefill", "--decode"}
        assert all(flags.count(flag) == 1 for flag in flags if flag not in repeatable)
    for file in exported.files:
        if target == "trtllm" and file.documents:
            table = load_flags("trtllm-disaggregated" if file.name == "disaggregated.yaml" else "trtllm")
            for key, item in dotted(file.documents[0]):
                table.check(key, item)


@every_case
@every_plan
def test_all_chips_and_no_more(plan, target, backend):
    exported = export(plan, target, backend)
    assert exported.gpus == plan.point.chips
    box = 4 if "nvl72" in plan.system else 8
    for pool, hosts in zip(plan.pools, exported.pools, strict=True):
        assert hosts.hosts_per_group * hosts.gpus_per_host == pool.ranks == hosts.ranks
        assert hosts.gpus_per_host <= box
    if target == "dynamo":
        check_manifests(exported.files[0].documents)
        total = 0
        for component in exported.files[0].documents[0]["spec"]["components"][1:]:
            container = component["podTemplate"]["spec"]["containers"][0]
            hosts = component.get("multinode", {"nodeCount": 1})["nodeCount"]
            total += component["replicas"] * hosts * int(container["resources"]["limits"]["nvidia.com/gpu"])
        assert total == plan.point.chips


def pools_by_name(plan):
    names = []
    for number, pool in enumerate(plan.pools):
        same = [other for other in plan.pools if other.role is pool.role]
        earlier = [other for other in plan.pools[: number + 1] if other.role is pool.role]
        names.append(pool.role.value if len(same) == 1 else f"{pool.role.value}-{len(earlier)}")
    return dict(zip(names, plan.pools, strict=True))


def experts_of(plan):
    return load_model(plan.model).spec.moe.router.num_experts


@pytest.mark.parametrize("target", ["vllm", "dynamo"])
@every_plan
def test_the_rules_of_vllm(plan, target):
    found = commands(export(plan, target, "vllm"))
    for name, pool in pools_by_name(plan).items():
        words = found[name]
        tp, dp = value(words, "--tensor-parallel-size"), value(words, "--data-parallel-size", 1)
        assert tp * dp == pool.ranks
        assert ("--enable-expert-parallel" in words) == (pool.ep > 1)
        redundant = value(words, "--eplb-config", {"num_redundant_experts": 0}, json.loads)
        slots = experts_of(plan) + redundant["num_redundant_experts"]
        assert slots % pool.ep == 0
        assert slots - experts_of(plan) >= pool.redundant_experts
        assert ("--enable-eplb" in words) == ("--eplb-config" in words)
        seats = value(words, "--max-num-seqs", 1)
        assert value(words, "--max-num-batched-tokens", seats) >= seats
        assert value(words, "--max-model-len") == plan.isl + plan.osl
        if "--enable-dbo" in words:
            assert value(words, "--all2all-backend", kind=str).startswith("deepep")
        assert ("--kv-transfer-config" in words) == (pool.role is not Role.MIXED)
        if target == "vllm":
            local = value(words, "--data-parallel-size-local", dp)
            hosts = value(words, "--nnodes", dp // local)
            assert local * tp * hosts == pool.ranks * (1 if "--nnodes" not in words else hosts)
            # With a start rank on its first host too, vLLM would want an API server on every host.
            assert "--data-parallel-start-rank" not in words[words.index("exec") :]
        else:
            assert "--headless" not in words


@pytest.mark.parametrize("target", ["sglang", "dynamo"])
@every_plan
def test_the_rules_of_sglang(plan, target):
    found = commands(export(plan, target, "sglang"))
    for name, pool in pools_by_name(plan).items():
        words = found[name]
        tp, dp, ep = value(words, "--tp-size"), value(words, "--dp-size", 1), value(words, "--ep-size", 1)
        assert tp == pool.ranks
        assert tp % dp == 0
        assert dp == pool.ranks // pool.tp
        assert tp % ep == 0
        assert ep == pool.ep
        assert (dp > 1) == ("--enable-dp-attention" in words)
        if "--moe-a2a-backend" in words:
            assert ep == tp
        assert tp % value(words, "--nnodes", 1) == 0
        assert (experts_of(plan) + value(words, "--ep-num-redundant-experts", 0)) % ep == 0
        assert value(words, "--max-running-requests", dp) == ceil(pool.batch_per_rank or 1) * dp
        if pool.batch_tokens:
            assert value(words, "--chunked-prefill-size") // dp == pool.batch_tokens
        mode = value(words, "--disaggregation-mode", "mixed", str)
        assert mode == pool.role.value


@pytest.mark.parametrize("target", ["trtllm", "dynamo"])
@every_plan
def test_the_rules_of_trtllm(plan, target):
    exported = export(plan, target, "trtllm")
    for name, pool in pools_by_name(plan).items():
        if target == "trtllm":
            file = next(file for file in exported.files if file.name == f"{name}.yaml")
            values = dict(dotted(file.documents[0]))
            get = values.get
            tp, ep = get("tensor_parallel_size"), get("moe_expert_parallel_size")
        else:
            words = commands(exported)[name]
            tp, ep = value(words, "--tensor-parallel-size"), value(words, "--expert-parallel-size")
            get = lambda key: value(words, f"--trtllm.{key}")  # noqa: B023, E731 (used at once)
        assert tp == pool.ranks
        assert ep * get("moe_tensor_parallel_size") == tp
        slots = get("moe_config.load_balancer.num_slots")
        if slots is not None:
            assert slots % ep == 0
            assert slots >= experts_of(plan) + pool.redundant_experts
        else:
            assert experts_of(plan) % ep == 0


@every_case
@every_plan
def test_notes_are_in_the_files(plan, target, backend):
    exported = export(plan, target, backend)
    assert "not run against this engine" in exported.notes[0]
    assert exported.versions
    commented = "\n".join(line for file in exported.files for line in file.comments)
    said = [note for note in exported.notes if "load balancer before them" not in note]
    assert all(note in commented for note in said)


def notes(plan, target, **given):
    return "\n".join(export_plan(plan, target, **given).notes)


def test_what_a_target_cannot_say_is_said():
    overlapped = planned(mixed(1, 8, micro_batches=2), system="hgx-b200")
    assert "none" in notes(overlapped, "vllm")
    assert "none" in notes(overlapped, "sglang")
    assert "No setting overlaps two micro-batches" in notes(overlapped, "trtllm")
    split = planned(mixed(1, 8, ep=4), system="hgx-b200")
    assert "EP4 becomes EP8" in notes(split, "vllm")
    assert "has no all-to-all backend" in notes(split, "sglang")
    shared = planned(prefill(1, 8, tp=2), decode(1, 8, tp=2), system="hgx-b200")
    assert "attentions of 2 ranks become one for each rank" in notes(shared, "trtllm")
    wide = planned(prefill(1, 8), decode(1, 144), system="gb200-nvl72")
    assert "spans 2 domains of 72" in notes(wide, "sglang")
    assert "48 redundant experts instead of 0" in notes(wide, "sglang")
    assert "does not route between prefill and decode" in notes(wide, "vllm")
    assert "ComputeDomain" in notes(wide, "dynamo", backend="sglang")
    many = planned(mixed(2, 8), system="hgx-b200")
    assert "load balancer before them" in notes(many, "vllm")
    assert "load balancer before them" in notes(many, "trtllm")
    rows = planned(prefill(1, 8), decode(1, 8, batch_per_rank=200.0), system="hgx-h200")
    assert "MAX_DISPATCH_TOKENS_PER_RANK to 200" in notes(rows, "sglang")


def test_the_checkpoint_has_the_planned_format():
    plan = PLANS["EP72 with redundancy"]
    assert "moonshotai/Kimi-K2-Thinking is in int4: give one in nvfp4" in notes(plan, "vllm")
    assert "moonshotai/Kimi-K2-Thinking" in commands(export(plan, "vllm", "vllm"))["decode"]
    given = export(plan, "vllm", "vllm", checkpoint="/models/k2-nvfp4")
    assert "--checkpoint" not in "\n".join(given.notes)
    assert "/models/k2-nvfp4" in commands(given)["decode"]
    assert value(commands(export(plan, "sglang", ""))["decode"], "--quantization", kind=str) == "modelopt_fp4"
    assert "--quantization" not in commands(export(PLANS["int4"], "sglang", ""))["decode"]


def test_a_model_by_its_folder(tmp_path):
    config = json.loads((Path(__file__).parents[3] / "models" / "austen-moe" / "config.json").read_text())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    for name in (tmp_path / "mine", tmp_path / "mine" / "config.json"):
        plan = planned(mixed(1, 8, tp=1, ep=8), model=str(name), system="hgx-b200", weights="bf16")
        words = commands(export(plan, "dynamo", "vllm"))["mixed"]
        assert value(words, "--model", kind=str) == str(tmp_path / "mine")
        assert value(words, "--served-model-name", kind=str) == "mine"


def test_the_cache_is_as_predicted():
    assert "--kv-cache-dtype" not in commands(export(PLANS["int4"], "vllm", ""))["decode"]
    wide = commands(export(PLANS["EP72 without"], "vllm", ""))["decode"]
    assert value(wide, "--kv-cache-dtype", kind=str) == "fp8"


def test_hosts_of_a_group_find_each_other():
    files = {file.name: file.script for file in export(PLANS["EP72 with redundancy"], "vllm", "").files}
    assert (
        '[ "$NODE_RANK" -eq 0 ] || set -- --headless --data-parallel-start-rank "$((NODE_RANK * 4))" "$@"'
        in (files["decode.sh"])
    )
    one = {file.name: file.script for file in export(PLANS["mixed TP8"], "vllm", "").files}["mixed.sh"]
    assert "NODE_RANK" not in one
    wide = commands(export(PLANS["TP16"], "vllm", ""))["mixed"]
    assert (value(wide, "--nnodes"), value(wide, "--node-rank", kind=str)) == (2, "$NODE_RANK")
    router = commands(export(PLANS["EP72 with redundancy"], "sglang", ""))["router"]
    assert router.count("--prefill") == 3
    assert router.count("--decode") == 1
    assert router[router.index("--prefill") + 1 :][:2] == ["http://$PREFILL_0:30000", "8998"]
    router = commands(export(PLANS["mixed TP8"], "sglang", ""))["router"]
    assert router[-2:] == ["http://$MIXED_0:30000", "http://$MIXED_1:30000"]
    launch = commands(export(PLANS["EP72 with redundancy"], "trtllm", ""))["decode"]
    assert value(launch, "-n") == 72


def test_what_dynamo_runs_is_a_graph():
    exported = export(PLANS["EP72 with redundancy"], "dynamo", "trtllm", namespace="ns", image="i:1")
    (file,) = exported.files
    assert file.name == "kimi-k2-thinking.yaml"
    graph = file.documents[0]
    assert graph["metadata"] == {"name": "kimi-k2-thinking", "namespace": "ns"}
    assert graph["spec"]["backendFramework"] == "trtllm"
    kinds = [(part["name"], part["type"], part["replicas"]) for part in graph["spec"]["components"]]
    assert kinds == [("frontend", "frontend", 1), ("prefill", "prefill", 3), ("decode", "decode", 1)]
    decoding = graph["spec"]["components"][2]
    assert decoding["multinode"] == {"nodeCount": 18}
    assert decoding["sharedMemorySize"] == "800Gi"
    assert decoding["podTemplate"]["spec"]["containers"][0]["image"] == "i:1"


def test_refusals():
    plan = PLANS["mixed TP8"]
    for given, says in (
        (("vlm", {}), "--to vlm is not known: give vllm"),
        (("dynamo", {"backend": "sglan"}), "--backend sglan is not known: give sglang"),
        (("dynamo", {"name": "A_b"}), "--name 'A_b' is no graph's name: give a-b, say"),
    ):
        with pytest.raises(SpecError) as error:
            export_plan(plan, given[0], **given[1])
        assert says in str(error.value)
    apart = planned(mixed(1, 16, tp=8, ep=16))
    with pytest.raises(SpecError, match="2 attentions of 8 ranks each on hosts with 4 GPUs"):
        export_plan(apart, "vllm")
    assert "attentions span hosts" in notes(apart, "dynamo", backend="sglang")
    assert set(TARGETS) == {target for target, _ in CASES}


def test_amd():
    words = commands(export_plan(AMD, "sglang"))["decode"]
    assert value(words, "--moe-a2a-backend", kind=str) == "mori"
    words = commands(export_plan(AMD, "vllm"))["decode"]
    assert value(words, "--all2all-backend", kind=str) == "mori_low_latency"
    assert "--enable-dbo" not in words
    with pytest.raises(SpecError, match="TensorRT-LLM does not run on"):
        export_plan(AMD, "trtllm")
    with pytest.raises(SpecError, match="Dynamo's operator does not count"):
        export_plan(AMD, "dynamo", backend="sglang")
