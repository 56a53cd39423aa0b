"""TensorRT-LLM: a configuration for each pool, `trtllm-serve` under MPI, and its front end before them."""

import shlex
from math import ceil

from rackscale.core import SpecError
from rackscale.plan.export.flag_table import Arguments, FlagTable, Value, load_flags
from rackscale.plan.export.result import Export, LaunchFile
from rackscale.plan.export.script import command
from rackscale.plan.export.setting import PoolSetting, Setting, common_notes, names_of
from rackscale.plan.inferencex import CACHE_OF_REST
from rackscale.specs import Role

HTTP_PORT = 8000
WORKER_PORT = 8001
SERVERS = {Role.PREFILL: "context_servers", Role.DECODE: "generation_servers"}


def export_trtllm(setting: Setting) -> Export:
    """NAME.yaml and NAME.sh for each pool; where prefill is apart, what sends requests to both."""
    table, serve = load_flags("trtllm"), load_flags("trtllm-serve")
    refuse_amd(setting)
    notes = trtllm_notes(setting)
    files: list[LaunchFile] = []
    versions = {table.program: table.version, serve.program: serve.version}
    for name, pool in zip(names_of(setting.pools), setting.pools, strict=True):
        files += [_config(name, setting, pool, table, notes), _script(name, setting, pool, serve)]
    if setting.disaggregated:
        servers = load_flags("trtllm-disaggregated")
        versions[servers.program] = servers.version
        files += _front_end(setting, servers, serve)
    elif sum(pool.pool.groups for pool in setting.pools) > 1:
        notes.append("Each group is a server of its own: put a load balancer before them.")
    return Export(
        target="trtllm",
        backend="trtllm",
        files=tuple(files),
        notes=tuple(notes),
        pools=tuple(pool.placement for pool in setting.pools),
        versions=versions,
    )


def refuse_amd(setting: Setting) -> None:
    """Raises SpecError where the chips are not NVIDIA's."""
    if setting.is_amd:
        raise SpecError(
            f"TensorRT-LLM does not run on {setting.system.title}", hint="give --to vllm or --to sglang"
        )


def trtllm_values(setting: Setting, pool: PoolSetting) -> dict[str, Value | None]:
    """An engine's configuration by dotted key; None: left to the engine."""
    plan = pool.pool
    several = pool.attentions > 1
    apart = plan.role is not Role.MIXED
    spread = pool.spreads_experts
    return {
        "tensor_parallel_size": plan.ranks,
        "moe_expert_parallel_size": plan.ep,
        "moe_tensor_parallel_size": plan.ranks // plan.ep,
        "gpus_per_node": pool.gpus,
        "enable_attention_dp": several,
        "attention_dp_config.enable_balance": True if several and plan.role is Role.MIXED else None,
        "moe_config.load_balancer.num_slots": pool.slots if spread and pool.redundant else None,
        "moe_config.load_balancer.layer_updates_per_iter": 1 if spread and pool.redundant else None,
        "max_batch_size": _sequences(setting, pool),
        "max_num_tokens": max(plan.batch_tokens + pool.rows, pool.rows),
        "max_seq_len": setting.max_length,
        "enable_chunked_prefill": True if plan.role is not Role.DECODE else None,
        "disable_overlap_scheduler": True if plan.role is Role.PREFILL else None,
        "trust_remote_code": True,
        "kv_cache_config.free_gpu_memory_fraction": CACHE_OF_REST,
        "kv_cache_config.dtype": "fp8" if setting.fp8_cache else None,
        "cuda_graph_config.max_batch_size": pool.rows or None,
        "cuda_graph_config.enable_padding": True if pool.rows else None,
        "cache_transceiver_config.backend": "DEFAULT" if apart else None,
        "cache_transceiver_config.max_tokens_in_buffer": setting.max_length if apart else None,
    }


def trtllm_notes(setting: Setting) -> list[str]:
    """What TensorRT-LLM cannot say of a plan."""
    notes = common_notes(setting)
    for pool in setting.pools:
        plan = pool.pool
        if 1 < plan.tp < plan.ranks:
            notes.append(
                f"TensorRT-LLM has one attention for a group or one for each rank: the {plan.role} pool's"
                f" attentions of {plan.tp} ranks become one for each rank, with {plan.tp} times the weights."
            )
        if plan.micro_batches > 1:
            notes.append(f"No setting overlaps two micro-batches: the {plan.role} pool has none.")
    return notes


def _sequences(setting: Setting, pool: PoolSetting) -> int:
    """Of one attention's step. Where attentions of several ranks become one each, rows are dealt out."""
    if pool.rows == 0:
        return ceil(max(pool.pool.batch_tokens, 1) / setting.planned.isl)
    shared = pool.pool.tp if 1 < pool.pool.tp < pool.pool.ranks else 1
    return ceil(pool.rows / shared)


def _config(name: str, setting: Setting, pool: PoolSetting, table: FlagTable, notes: list[str]) -> LaunchFile:
    arguments = Arguments(table)
    arguments.add_all(trtllm_values(setting, pool))
    return LaunchFile(
        name=f"{name}.yaml",
        comments=(f"Keys are those of TensorRT-LLM, {table.version}.", *notes),
        documents=(arguments.document(),),
    )


def _script(name: str, setting: Setting, pool: PoolSetting, table: FlagTable) -> LaunchFile:
    arguments = Arguments(table)
    arguments.add_all(
        {
            "--backend": "pytorch",
            "--config": f"{name}.yaml",
            "--host": "0.0.0.0",  # noqa: S104 (the front end asks it)
            "--port": WORKER_PORT if setting.disaggregated else HTTP_PORT,
        }
    )
    serve = [table.program, "serve", setting.checkpoint]
    lines = ["set -eu"]
    if pool.hosts > 1:
        lines.append(
            f': "${{HOSTS:?{pool.hosts} hosts of the group, HOST:{pool.gpus},HOST:{pool.gpus} and so on}}"'
        )
        # One server of all ranks of an MPI job, as Dynamo's operator starts it too (backend_trtllm.go).
        launch = ["mpirun", "-n", str(pool.pool.ranks)]
        text = f'exec {shlex.join(launch)} -H "$HOSTS" \\\n  trtllm-llmapi-launch '
        text += command(serve, arguments.words()).removeprefix("exec ")
    else:
        text = command(serve, arguments.words())
    return LaunchFile(
        name=f"{name}.sh",
        comments=(
            f"{pool.words}: run this once for each group, on its first host.",
            f"Options are those of {table.program}, {table.version}.",
        ),
        script="\n".join(lines) + "\n" + text,
    )


def _front_end(setting: Setting, servers: FlagTable, serve: FlagTable) -> list[LaunchFile]:
    arguments = Arguments(servers)
    arguments.add_all({"hostname": "0.0.0.0", "port": HTTP_PORT})  # noqa: S104 (clients ask it)
    for role, key in SERVERS.items():
        urls = [
            f"{name}-{group}:{WORKER_PORT}"
            for name, pool in zip(names_of(setting.pools), setting.pools, strict=True)
            if pool.pool.role is role
            for group in range(pool.pool.groups)
        ]
        arguments.add_all({f"{key}.num_instances": len(urls), f"{key}.urls": urls})
    run = Arguments(serve)
    run.add("--config_file", "disaggregated.yaml")
    return [
        LaunchFile(
            name="disaggregated.yaml",
            comments=(
                "Put the address of each group's first host for prefill-0, decode-0 and so on.",
                f"Keys are those of TensorRT-LLM, {servers.version}.",
            ),
            documents=(arguments.document(),),
        ),
        LaunchFile(
            name="disaggregated.sh",
            comments=("What clients ask.",),
            script="set -eu\n" + command([serve.program, "disaggregated"], run.words()),
        ),
    ]
