"""Draw rack.png and rack-small.png: what /rack shows of an invented rack.

python docs/images/make_rack_png.py [FOLDER]; needs chromium and pngquant on the path.
"""

import asyncio
import math
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from aiohttp import web

from rackscale.serve.rack_page import add_rack_routes
from rackscale.serve.rack_state import (
    ExpertsView,
    GroupView,
    RackEvent,
    RackState,
    RankStatus,
    RankView,
    TransfersView,
)

LIMIT_S = 120.0
NOON_S = 1_767_268_800.0
DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"


def fake_state(
    sizes: Mapping[str, int],
    *,
    at_s: float = 0.0,
    model: str = "gpt-oss-120b",
    host: str = "rack-a",
    num_layers: int = 36,
    num_experts: int = 128,
    lost: tuple[int, ...] = (),
    starting: tuple[int, ...] = (),
) -> RackState:
    """A rack that is invented, and the same each time. sizes: ranks by role. at_s: what of it is seen."""
    groups: list[GroupView] = []
    numbers = count()
    for role, size in sizes.items():
        ranks = [_rank(next(numbers), role, at_s, host, lost, starting) for _ in range(size)]
        step_s = 0.212 if role == "prefill" else 0.0246
        groups.append(
            GroupView(
                group=len(groups),
                role=role,
                tp=1,
                ranks=ranks,
                num_steps=int(at_s / step_s),
                step_s=step_s,
                imbalance=1.06 + 0.02 * len(groups),
            )
        )
    ranks = [rank for group in groups for rank in group.ranks]
    sampled = sum(rank.tokens_per_s for group in groups if group.role != "prefill" for rank in group.ranks)
    pairs = {"prefill", "decode"} <= set(sizes)
    return RackState(
        model=model,
        time_s=NOON_S + at_s,
        uptime_s=15_300 + at_s,
        num_running=sum(rank.num_running for rank in ranks),
        num_waiting=sum(rank.num_waiting for rank in ranks),
        num_finished=1_208_411 + int(31 * at_s),
        tokens_per_s=sampled,
        groups=groups,
        experts=ExpertsView(
            loads=_loads(num_layers, num_experts, at_s), num_rebalances=12, num_moved_experts=431
        ),
        transfers=_transfers(at_s) if pairs else _no_transfers(),
        events=_events(at_s, host, lost, starting),
    )


def _wave(seed: float, at_s: float) -> float:
    """0 to 1, smooth in time, different for each seed."""
    return 0.5 + 0.25 * (math.sin(seed * 12.9898 + at_s / 9) + math.sin(seed * 78.233 + at_s / 23))


def _rank(
    number: int, role: str, at_s: float, host: str, lost: tuple[int, ...], starting: tuple[int, ...]
) -> RankView:
    status = (
        RankStatus.LOST if number in lost else RankStatus.STARTING if number in starting else RankStatus.UP
    )
    works = float(status is RankStatus.UP)
    swing = _wave(number + 1, at_s) * (0.55 + 0.45 * _wave(5.0, at_s))
    is_prefill = role == "prefill"
    compute = (0.74 if is_prefill else 0.6) + 0.12 * swing
    copy = 0.06 if is_prefill else 0.03
    return RankView(
        rank=number,
        host=f"{host}-{number // 4 + 1:02d}",
        pid=4100 + number,
        status=status,
        num_running=int(works * (3 + 3 * swing if is_prefill else 36 + 24 * swing)),
        num_waiting=int(works * 5 * _wave(number + 7, 3 * at_s)) if is_prefill or role == "mixed" else 0,
        num_blocks=8192,
        num_used_blocks=int(works * 8192 * (0.15 + 0.3 * swing if is_prefill else 0.45 + 0.5 * swing)),
        tokens_per_s=works * (7600 + 2400 * swing if is_prefill else 1150 + 1000 * swing),
        num_restarts=int(number in starting or number in lost),
        compute_share=works * compute,
        wait_share=works * (0.95 - compute - copy),
        copy_share=works * copy,
    )


def _loads(num_layers: int, num_experts: int, at_s: float) -> list[list[float]]:
    """A few experts of each layer are hot; later layers have sharper tastes."""
    return [
        [
            1000.0
            * math.exp((0.25 + 0.3 * layer / num_layers) * _bell(layer, expert))
            * (0.85 + 0.3 * _wave(layer + expert, at_s))
            for expert in range(num_experts)
        ]
        for layer in range(num_layers)
    ]


def _bell(layer: int, expert: int) -> float:
    """About normal: twelve scrambled numbers of 0 to 1, less their mean."""
    seed = (layer * 1009 + expert + 1) * 2_654_435_761
    return sum((seed * (2 * n + 1) ** 5 >> (n + 7)) % 1021 / 1020 for n in range(12)) - 6.0


def _transfers(at_s: float) -> TransfersView:
    swing = _wave(3.0, 3 * at_s)
    return TransfersView(
        num_in_flight=int(6 + 8 * swing),
        num_moved=1_208_460 + int(31 * at_s),
        num_failed=2,
        num_bytes=171_000_000_000_000 + int(44e8 * at_s),
        bytes_per_s=4.1e9 + 9e8 * swing,
    )


def _no_transfers() -> TransfersView:
    return TransfersView(num_in_flight=0, num_moved=0, num_failed=0, num_bytes=0, bytes_per_s=0.0)


def _events(at_s: float, host: str, lost: tuple[int, ...], starting: tuple[int, ...]) -> list[RackEvent]:
    told = [(4.0, f"rank {rank} on {host}-{rank // 4 + 1:02d} lost, its requests run again") for rank in lost]
    told += [(9.0, f"rank {rank} on {host}-{rank // 4 + 1:02d} starts again") for rank in starting]
    told += [
        (60.0 * minute, f"experts rebalanced, {9 + 7 * minute % 31} moved") for minute in (1, 6, 11, 16, 21)
    ]
    return [RackEvent(time_s=NOON_S + at_s - ago_s, what=what) for ago_s, what in told]


@asynccontextmanager
async def serving(state: Callable[[], RackState | None]) -> AsyncIterator[str]:
    """The two routes on loopback; gives their address."""
    app = web.Application()
    add_rack_routes(app, state)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def photograph(
    path: Path, size: str, scheme: str, states: Callable[[], RackState | None], seconds: int
) -> None:
    """Let chromium watch the page for a while of its own time, which passes fast, and take a picture."""
    async with serving(states) as url:
        with tempfile.TemporaryDirectory() as profile:
            browser = await asyncio.create_subprocess_exec(
                "chromium",
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", scheme),
                *(f"--user-data-dir={profile}", f"--window-size={size}", f"--screenshot={path}"),
                *(f"--virtual-time-budget={1000 * seconds}", f"{url}/rack"),
                stderr=asyncio.subprocess.DEVNULL,
            )
            await asyncio.wait_for(browser.wait(), LIMIT_S)
    shrink = await asyncio.create_subprocess_exec("pngquant", "--force", "--output", path, "192", path)
    await asyncio.wait_for(shrink.wait(), LIMIT_S)


async def main(folder: Path) -> None:
    """Both pictures."""
    times = count(0)
    await photograph(
        folder / "rack.png",
        "1500,1080",
        DARK,
        lambda: fake_state({"prefill": 24, "decode": 48}, at_s=next(times), lost=(41,), starting=(58,)),
        110,
    )
    small = count(0)
    await photograph(
        folder / "rack-small.png",
        "1200,760",
        LIGHT,
        lambda: fake_state(
            {"prefill": 1, "decode": 2}, at_s=next(small), model="austen-moe", num_layers=6, num_experts=32
        ),
        90,
    )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)))
