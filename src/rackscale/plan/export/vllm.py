"""vLLM: `vllm serve`, once on each host of each group."""

from rackscale.core import SpecError
from rackscale.plan.export.flag_table import Arguments, FlagTable, Variable, load_flags
from rackscale.plan.export.result import Export, LaunchFile
from rackscale.plan.export.script import command, line
from rackscale.plan.export.setting import PoolSetting, Setting, common_notes, names_of
from rackscale.plan.inferencex import CACHE_OF_ALL
from rackscale.specs import Role

HTTP_PORT = 8000
GROUP_PORT = 13345  # where a group's first host listens for the others

# Kernels for many tokens and for few, as https://docs.vllm.ai/en/latest/serving/expert_parallel_deployment/
# and recipes/deepseek-r1/vllm/disagg/deploy_hopper_16gpu.yaml of ai-dynamo/dynamo (ecd2979) choose them.
DEEPEP = {
    Role.PREFILL: "deepep_high_throughput",
    Role.DECODE: "deepep_low_latency",
    Role.MIXED: "deepep_high_throughput",
}
MORI = {
    Role.PREFILL: "mori_high_throughput",
    Role.DECODE: "mori_low_latency",
    Role.MIXED: "mori_high_throughput",
}


def export_vllm(setting: Setting) -> Export:
    """A script for each pool. Raises SpecError where an attention spans hosts beside another one."""
    table = load_flags("vllm")
    notes = vllm_notes(setting)
    if setting.disaggregated:
        notes.append(
            "vLLM's server does not route between prefill and decode: put a proxy that knows NixlConnector"
            " before the pools, or export --to dynamo --backend vllm."
        )
    elif sum(pool.pool.groups for pool in setting.pools) > 1:
        notes.append("Each group is a server of its own: put a load balancer before them.")
    return Export(
        target="vllm",
        backend="vllm",
        files=tuple(
            _script(name, setting, pool, table, notes)
            for name, pool in zip(names_of(setting.pools), setting.pools, strict=True)
        ),
        notes=tuple(notes),
        pools=tuple(pool.placement for pool in setting.pools),
        versions={table.program: table.version},
    )


def vllm_arguments(setting: Setting, pool: PoolSetting, table: FlagTable) -> Arguments:
    """Of any host of a group, plain or under Dynamo."""
    plan = pool.pool
    wide = pool.spreads_experts and pool.attentions > 1
    backends = MORI if setting.is_amd else DEEPEP
    arguments = Arguments(table)
    arguments.add_all(
        {
            "--tensor-parallel-size": plan.tp,
            "--data-parallel-size": pool.attentions if pool.attentions > 1 else None,
            "--enable-expert-parallel": pool.spreads_experts,
            "--all2all-backend": backends[plan.role] if wide else None,
            "--enable-eplb": pool.redundant > 0,
            "--eplb-config": {"num_redundant_experts": pool.redundant} if pool.redundant else None,
            "--enable-dbo": _overlaps(setting, pool),
            "--max-num-seqs": pool.rows or None,
            "--max-num-batched-tokens": plan.batch_tokens + pool.rows if plan.batch_tokens else None,
            "--max-model-len": setting.max_length,
            "--kv-cache-dtype": "fp8" if setting.fp8_cache else None,
            "--gpu-memory-utilization": CACHE_OF_ALL,
            "--kv-transfer-config": None
            if plan.role is Role.MIXED
            else {"kv_connector": "NixlConnector", "kv_role": "kv_both"},
            "--trust-remote-code": True,
        }
    )
    return arguments


def vllm_notes(setting: Setting) -> list[str]:
    """What vLLM cannot say of a plan."""
    notes = common_notes(setting)
    for pool in setting.pools:
        plan = pool.pool
        if plan.ep not in (1, plan.ranks):
            notes.append(
                f"vLLM spreads experts over all ranks of a group: the {plan.role} pool's EP{plan.ep} becomes"
                f" EP{plan.ranks}."
            )
        if plan.micro_batches > 1 and not _overlaps(setting, pool):
            notes.append(f"vLLM overlaps micro-batches under DeepEP only: the {plan.role} pool has none.")
        if plan.role is Role.MIXED and plan.batch_tokens:
            notes.append(
                "Prompts are cut so that a step has the planned prompt tokens and a token of each row."
            )
    return notes


def _overlaps(setting: Setting, pool: PoolSetting) -> bool:
    wide = pool.spreads_experts and pool.attentions > 1
    return pool.pool.micro_batches > 1 and wide and not setting.is_amd


def _script(name: str, setting: Setting, pool: PoolSetting, table: FlagTable, notes: list[str]) -> LaunchFile:
    arguments = vllm_arguments(setting, pool, table)
    arguments.add_all({"--host": "0.0.0.0", "--port": HTTP_PORT})  # noqa: S104 (other hosts ask it)
    lines = ["set -eu"]
    last = ""
    if pool.hosts > 1:
        lines += [
            ': "${HEAD:?address of the first host of the group}"',
            f': "${{NODE_RANK:?0 to {pool.hosts - 1}, 0 on the first host}}"',
            f'[ "$NODE_RANK" -eq 0 ] || set -- {_of_other_hosts(arguments, pool)} "$@"',
        ]
        last = '"$@"'
    text = command(["vllm", "serve", setting.checkpoint], arguments.words(), last=last)
    return LaunchFile(
        name=f"{name}.sh",
        comments=(
            f"{pool.words}: run this on every host.",
            f"Flags are those of {table.program} {table.version}.",
            *notes,
        ),
        script="\n".join(lines) + "\n" + text,
    )


def _of_other_hosts(arguments: Arguments, pool: PoolSetting) -> str:
    """Adds what all hosts of a group are given, and gives what those beside the first are given too.

    The first must not have a start rank: vLLM then expects an API server on every host.
    """
    plan = pool.pool
    others = Arguments(arguments.table)
    others.add("--headless")
    if plan.tp <= pool.gpus and pool.gpus % plan.tp == 0:
        local = pool.gpus // plan.tp
        arguments.add_all(
            {
                "--data-parallel-size-local": local,
                "--data-parallel-address": Variable("$HEAD"),
                "--data-parallel-rpc-port": GROUP_PORT,
            }
        )
        others.add("--data-parallel-start-rank", Variable(f"$((NODE_RANK * {local}))"))
        return line(word for words in others.words() for word in words)
    if pool.attentions > 1:
        raise SpecError(
            f"vLLM: {pool.attentions} attentions of {plan.tp} ranks each on hosts with {pool.gpus} GPUs",
            hint="export to sglang, or plan one attention a group or one a host",
        )
    arguments.add_all(
        {
            "--nnodes": pool.hosts,
            "--node-rank": Variable("$NODE_RANK"),
            "--master-addr": Variable("$HEAD"),
            "--master-port": GROUP_PORT,
        }
    )
    return line(word for words in others.words() for word in words)
