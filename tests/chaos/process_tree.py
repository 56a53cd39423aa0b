"""A server's processes: who is who, what they hold, and whether any is left."""

import os
from pathlib import Path

from live_server import LiveServer, children, lives

TARGETS = ("prefill rank", "decode rank", "engine", "host")
MODULES = {"engine": "rackscale.serve.engine_process", "host": "rackscale.runtime.rank_host"}
SHARED_MEMORY = Path("/dev/shm")
KIB_PER_MIB = 1024


def target_pid(server: LiveServer, target: str) -> int | None:
    """The process of that name as it is now; None while there is none."""
    if target in MODULES:
        return child_pid(server, target)
    state = server.get("/rack/state").json
    for group in state["groups"]:
        if group["role"] in {target.partition(" ")[0], "mixed"}:
            pid = group["ranks"][-1]["pid"]
            return pid if pid and lives(pid) else None
    return None


def child_pid(server: LiveServer, target: str) -> int | None:
    """The server's child that runs the target's module. Of two hosts, the one that has ranks: the other
    stands by."""
    found = [pid for pid in children(server.process.pid) if _runs(pid, MODULES[target]) and lives(pid)]
    return max(found, key=lambda pid: len(children(pid)), default=None)


def _runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def tree(pid: int) -> list[int]:
    """It, and all that descend from it."""
    return [pid, *(one for child in children(pid) for one in tree(child))]


def memory_mib(pid: int) -> dict[str, float]:
    """What a server holds: its own process, and the whole tree. Pages that are shared count once in all."""
    return {"server": _held_mib(pid), "tree": sum(map(_held_mib, tree(pid)))}


def _held_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / KIB_PER_MIB


def owners_of(token: str) -> list[int]:
    """All processes that were started with that token in their environment, wherever they are by now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        try:
            if pid != os.getpid() and token.encode() in path.read_bytes() and lives(pid):
                found.append(pid)
        except OSError:
            continue
    return found
