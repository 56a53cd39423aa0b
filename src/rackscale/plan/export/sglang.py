"""SGLang: `sglang.launch_server`, once on each host of each group, and its router before them."""

from rackscale.plan.export.flag_table import Arguments, FlagTable, Variable, load_flags
from rackscale.plan.export.result import Export, LaunchFile
from rackscale.plan.export.script import command
from rackscale.plan.export.setting import PoolSetting, Setting, common_notes, names_of
from rackscale.plan.inferencex import CACHE_OF_ALL
from rackscale.specs import Role

HTTP_PORT = 30000
ROUTER_PORT = 8000
BOOTSTRAP_PORT = 8998
GROUP_PORT = 5000  # where a group's first host listens for the others
DEEPEP_MODES = {Role.PREFILL: "normal", Role.DECODE: "low_latency", Role.MIXED: "auto"}
DISPATCHED = 128  # tokens of a rank that DeepEP's low-latency kernels take: sglang/srt/environ.py, line 1253
QUANTIZATION = {"nvfp4": "modelopt_fp4"}  # other formats a checkpoint states itself


def export_sglang(setting: Setting) -> Export:
    """A script for each pool, and one for the router."""
    table, router = load_flags("sglang"), load_flags("sglang-router")
    notes = sglang_notes(setting)
    names = names_of(setting.pools)
    files = [
        _script(name, setting, pool, table, notes) for name, pool in zip(names, setting.pools, strict=True)
    ]
    return Export(
        target="sglang",
        backend="sglang",
        files=(*files, _router(setting, router)),
        notes=tuple(notes),
        pools=tuple(pool.placement for pool in setting.pools),
        versions={table.program: table.version, router.program: router.version},
    )


def sglang_arguments(setting: Setting, pool: PoolSetting, table: FlagTable) -> Arguments:
    """Of any host of a group, plain or under Dynamo.

    Running requests and chunks are the whole group's: SGLang divides them by its attentions.
    """
    plan = pool.pool
    several = pool.attentions > 1
    arguments = Arguments(table)
    arguments.add_all(
        {
            "--model-path": setting.checkpoint,
            "--tp-size": plan.ranks,
            "--dp-size": pool.attentions if several else None,
            "--enable-dp-attention": several,
            "--enable-dp-lm-head": several,
            "--moe-dense-tp-size": 1 if several and plan.tp == 1 else None,
            "--ep-size": plan.ep if pool.spreads_experts else None,
            "--moe-a2a-backend": _backend(setting, pool),
            "--deepep-mode": DEEPEP_MODES[plan.role] if _backend(setting, pool) == "deepep" else None,
            "--enable-eplb": pool.redundant > 0,
            "--ep-num-redundant-experts": pool.redundant or None,
            "--enable-two-batch-overlap": _overlaps(setting, pool),
            "--max-running-requests": pool.rows * pool.attentions or None,
            "--cuda-graph-max-bs-decode": pool.rows or None,
            "--chunked-prefill-size": plan.batch_tokens * pool.attentions or None,
            "--max-prefill-tokens": plan.batch_tokens or None,
            "--context-length": setting.max_length,
            "--quantization": QUANTIZATION.get(setting.planned.weights),
            "--kv-cache-dtype": "fp8_e4m3" if setting.fp8_cache else None,
            "--mem-fraction-static": CACHE_OF_ALL,
            "--trust-remote-code": True,
        }
    )
    if plan.role is not Role.MIXED:
        arguments.add_all(
            {
                "--disaggregation-mode": plan.role.value,
                "--disaggregation-transfer-backend": "nixl",
                "--disaggregation-bootstrap-port": BOOTSTRAP_PORT,
            }
        )
    return arguments


def sglang_notes(setting: Setting) -> list[str]:
    """What SGLang cannot say of a plan."""
    notes = common_notes(setting)
    for pool in setting.pools:
        plan = pool.pool
        if plan.micro_batches > 1 and not _overlaps(setting, pool):
            notes.append(
                f"SGLang overlaps micro-batches under an all-to-all backend: the {plan.role} pool has none."
            )
        if plan.role is Role.DECODE and pool.rows > DISPATCHED and _backend(setting, pool) == "deepep":
            notes.append(
                f"Set SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK to {pool.rows} for the decode pool:"
                f" it is {DISPATCHED} if not set."
            )
        if plan.ep not in (1, plan.ranks):
            notes.append(
                f"The {plan.role} pool's EP{plan.ep} in groups of {plan.ranks} has no all-to-all backend:"
                " with SGLang's, experts go over the whole group."
            )
    return notes


def _backend(setting: Setting, pool: PoolSetting) -> str | None:
    if not pool.spreads_experts or pool.pool.ep != pool.pool.ranks or pool.attentions == 1:
        return None
    return "mori" if setting.is_amd else "deepep"


def _overlaps(setting: Setting, pool: PoolSetting) -> bool:
    return pool.pool.micro_batches > 1 and _backend(setting, pool) is not None


def _script(name: str, setting: Setting, pool: PoolSetting, table: FlagTable, notes: list[str]) -> LaunchFile:
    arguments = sglang_arguments(setting, pool, table)
    arguments.add_all({"--host": "0.0.0.0", "--port": HTTP_PORT})  # noqa: S104 (other hosts ask it)
    lines = ["set -eu"]
    if pool.hosts > 1:
        lines += [
            ': "${HEAD:?address of the first host of the group}"',
            f': "${{NODE_RANK:?0 to {pool.hosts - 1}, 0 on the first host}}"',
        ]
        arguments.add_all(
            {
                "--nnodes": pool.hosts,
                "--node-rank": Variable("$NODE_RANK"),
                "--dist-init-addr": Variable(f"$HEAD:{GROUP_PORT}"),
            }
        )
    return LaunchFile(
        name=f"{name}.sh",
        comments=(
            f"{pool.words}: run this on every host.",
            f"Flags are those of sglang {table.version}.",
            *notes,
        ),
        script="\n".join(lines) + "\n" + command(table.program.split(), arguments.words()),
    )


def _router(setting: Setting, table: FlagTable) -> LaunchFile:
    arguments = Arguments(table)
    arguments.add_all({"--host": "0.0.0.0", "--port": ROUTER_PORT})  # noqa: S104 (clients ask it)
    arguments.add_all({"--pd-disaggregation": setting.disaggregated})
    workers: list[str] = []
    for name, pool in zip(names_of(setting.pools), setting.pools, strict=True):
        for group in range(pool.pool.groups):
            variable = f"{name}_{group}".upper().replace("-", "_")
            url = f"http://${variable}:{HTTP_PORT}"
            if pool.pool.role is Role.PREFILL:
                arguments.add("--prefill", [Variable(url), str(BOOTSTRAP_PORT)])
            elif pool.pool.role is Role.DECODE:
                arguments.add("--decode", Variable(url))
            else:
                workers.append(Variable(url))
    arguments.add_all({"--worker-urls": workers or None})
    return LaunchFile(
        name="router.sh",
        comments=(
            "Set a variable for the address of each group's first host: PREFILL_0, DECODE_0 and so on.",
            f"Flags are those of sglang-router {table.version}.",
        ),
        script="set -eu\n" + command(table.program.split(), arguments.words()),
    )
