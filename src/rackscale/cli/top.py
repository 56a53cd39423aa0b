"""`rackscale top`: the rack of a running server, in the terminal."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPException
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import typer
from msgspec import DecodeError, json, to_builtins
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json
from rackscale.core import RackscaleError, SpecError

if TYPE_CHECKING:
    from rackscale.serve.rack_state import ExpertsView, GroupView, RackEvent, RackState, RankView

ANSWER_LIMIT_S = 5.0
MAX_BYTES = 64 << 20
SECONDS_PER_MINUTE, MINUTES_PER_HOUR, HOURS_PER_DAY = 60, 60, 24
BYTES_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
LAMPS = {"up": ("●", "green"), "starting": ("◌", "yellow"), "lost": ("✕", "bold red")}
BAR_WIDTH = 10
OTHER_COLUMNS_WIDTH = 70  # all but the host's
MIN_HOST_WIDTH = 6
# Eight levels from 0 to HOT times a layer's mean; the third is the mean.
HOT = 4.0
BLOCKS = "▁▂▃▄▅▆▇█"
HEAT = ("#33414e", "#3d5870", "#2f78a8", "#7f7a8a", "#b5685e", "#d9743d", "#eda24a", "#ffe296")
MAX_HEAT_ROWS = 16
MAX_EVENTS = 5
# Racks are not behind the proxies that the environment names.
OPENER = build_opener(ProxyHandler({}))


def top(
    url: Annotated[str, typer.Argument(help="Where `rackscale serve` listens: http://127.0.0.1:8000")],
    *,
    interval_s: Annotated[float, typer.Option(metavar="X", help="Seconds between looks.", min=0.05)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch a server's ranks, experts and transfers. Ctrl-C ends it.

    Example: rackscale top http://127.0.0.1:8000
    """
    address = _address(url)
    console = Console(highlight=False)
    if as_json:
        print_json(to_builtins(_ask(address)))
    elif once:
        console.print(_frame(_ask(address), console.width, None))
    elif console.is_terminal:
        with Live(console=console, screen=True, auto_refresh=False) as live:

            def redraw(state: "RackState | None", notice: str) -> None:
                size = console.size
                parts = [Text(notice, "bold red")] if notice else []
                frame = None if state is None else _frame(state, size.width, size.height - len(parts))
                live.update(Group(*parts, *([] if frame is None else [frame])), refresh=True)

            _watch(address, interval_s, redraw)
    else:

        def write(state: "RackState | None", notice: str) -> None:
            console.print(notice if notice or state is None else _frame(state, console.width, None))

        _watch(address, interval_s, write)


def _watch(address: str, interval_s: float, show: Callable[["RackState | None", str], None]) -> None:
    """Show each state, or the last one and why there is no newer. Ends only by an exception.

    Raises SpecError where nothing of a rackscale server has ever been seen there.
    """
    state: RackState | None = None
    is_known = False
    while True:
        notice = ""
        try:
            state = _ask(address)
            is_known = True
        except RackscaleError as error:
            is_known = is_known or not isinstance(error, SpecError)
            if not is_known:
                raise
            notice = f"{error.what}; asking again every {interval_s:g} s"
        show(state, notice)
        time.sleep(interval_s)


def _address(url: str) -> str:
    """Scheme, host and port of what the user gave. Raises SpecError."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        is_web = parts.scheme in {"http", "https"} and parts.port != 0
        is_address = (
            is_web and bool(parts.hostname) and parts.netloc.isprintable() and " " not in parts.netloc
        )
    except ValueError:
        is_address = False
    if not is_address:
        raise SpecError(f"{_clean(url)} is no address of a server", hint="give it as http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def _ask(address: str) -> "RackState":
    """Raises SpecError where no rackscale server answers, RackscaleError where one has no state yet."""
    from rackscale.serve.rack_state import RackState  # noqa: PLC0415 (--help is fast)

    status, body = _fetch(address)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise RackscaleError(f"{address} is not ready", hint="the model is loading or ending; try again")
    try:
        if status == HTTPStatus.OK:
            return json.decode(body, type=RackState)
        what = f"{address} is no rackscale server, or an older one (status {status} for /rack/state)"
    except (DecodeError, UnicodeDecodeError):
        what = f"{address} is no rackscale server, or of another version (/rack/state is not as expected)"
    raise SpecError(what, hint="give the address that `rackscale serve` listens on")


def _fetch(address: str) -> tuple[int, bytes]:
    """Status and body. Raises SpecError where there is no whole answer in time."""
    try:
        try:
            answer = OPENER.open(f"{address}/rack/state", timeout=ANSWER_LIMIT_S)
        except HTTPError as error:
            answer = error  # an answer as well
        with answer:
            return answer.status, answer.read(MAX_BYTES)
    except (OSError, HTTPException, ValueError) as error:
        raise SpecError(
            f"{address} is not reachable ({_reason(error)})", hint="see that `rackscale serve` runs there"
        ) from None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"no answer within {ANSWER_LIMIT_S:g} s"
    return _clean(getattr(inner, "strerror", None) or str(inner) or type(inner).__name__)


def _frame(state: "RackState", width: int, height: int | None) -> Group:
    """One look at the rack. height: lines that there are; None: as many as it takes."""
    events = state.events[:MAX_EVENTS]
    heat_rows = MAX_HEAT_ROWS if height is None else max(2, min(MAX_HEAT_ROWS, height // 5))
    tail = [*_heat(state.experts, width, heat_rows), *_transfers(state), *_events(events)]
    head = _header(state)
    used = len(head) + len(tail) + 3 * len(state.groups)
    ranks = _ranks(state.groups, width, None if height is None else max(1, height - used))
    return Group(*head, *ranks, *tail)


def _header(state: "RackState") -> list[RenderableType]:
    figures = (
        (_count(state.tokens_per_s), "tok/s"),
        (_count(state.num_running), "running"),
        (_count(state.num_waiting), "waiting"),
        (_count(state.num_finished), "finished"),
    )
    name = Text.assemble((_clean(state.model), "bold"), (f"  up {_duration(state.uptime_s)}", "dim"))
    line = Text("   ").join(Text.assemble((number, "bold"), " ", noun) for number, noun in figures)
    return [_line(name), _line(line)]


def _ranks(groups: "Sequence[GroupView]", width: int, num_lines: int | None) -> list[RenderableType]:
    """A table for each group. Where there are too few lines, ranks that are not up come first, then the
    first ones of each group.
    """
    every = [rank for group in groups for rank in group.ranks]
    places = {rank.rank: place for group in groups for place, rank in enumerate(group.ranks)}
    shown = sorted(every, key=lambda rank: (rank.status == "up", places[rank.rank]))
    if num_lines is not None and len(every) > num_lines:
        shown = shown[: max(0, num_lines - 1)]
    numbers = {rank.rank for rank in shown}
    longest = max((len(rank.host) for rank in every), default=0)
    host_width = max(MIN_HOST_WIDTH, min(longest, width - OTHER_COLUMNS_WIDTH))
    parts: list[RenderableType] = []
    for group in groups:
        parts += [Text(), _line(_group_title(group))]
        parts.append(_table([rank for rank in group.ranks if rank.rank in numbers], host_width))
    if num_left := len(every) - len(shown):
        parts.append(Text(f"and {num_left} more; `--once` prints all", "dim"))
    return parts


def _group_title(group: "GroupView") -> Text:
    noun = "rank" if len(group.ranks) == 1 else "ranks"
    width = f", tp {group.tp}" if group.tp > 1 else ""
    step = f", a step {1000 * group.step_s:.1f} ms" if group.step_s else ""
    return Text.assemble(
        (_clean(group.role), "bold cyan"),
        f"  {len(group.ranks)} {noun}{width}{step}, imbalance {group.imbalance:.2f}",
    )


def _table(ranks: "Sequence[RankView]", host_width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("rank", justify="right", width=4)
    table.add_column("status", width=10)
    table.add_column("host", width=host_width, no_wrap=True, overflow="ellipsis")
    for name, width in (("run", 4), ("queue", 5)):
        table.add_column(name, justify="right", width=width)
    table.add_column("KV in use", width=BAR_WIDTH + 6)
    for name, width in (("tok/s", 7), ("comp", 4), ("wait", 4), ("copy", 4), ("↻", 2)):
        table.add_column(name, justify="right", width=width)
    for rank in ranks:
        table.add_row(*_cells(rank))
    return table


def _cells(rank: "RankView") -> list[Text]:
    lamp, style = LAMPS[rank.status]
    used = rank.num_used_blocks / rank.num_blocks if rank.num_blocks else 0.0
    filled = min(BAR_WIDTH, round(BAR_WIDTH * used))
    bar = Text.assemble(("█" * filled, "cyan"), ("·" * (BAR_WIDTH - filled), "dim"), f"{100 * used:4.0f} %")
    shares = (rank.compute_share, rank.wait_share, rank.copy_share)
    return [
        Text(str(rank.rank)),
        Text(f"{lamp} {rank.status}", style),
        Text(_clean(rank.host)),
        Text(_count(rank.num_running)),
        Text(_count(rank.num_waiting)),
        bar,
        Text(_count(rank.tokens_per_s)),
        *(Text(f"{100 * share:.0f}%") for share in shares),
        Text(str(rank.num_restarts), "yellow" if rank.num_restarts else "dim"),
    ]


def _heat(experts: "ExpertsView", width: int, max_rows: int) -> list[RenderableType]:
    """A row for each MoE layer. Where there is no room for all, neighbours share a row or a block, which
    shows the hottest of them.
    """
    times = [_over_mean(loads) for loads in experts.loads]
    moves = f"{_count(experts.num_rebalances)} rebalances, {_count(experts.num_moved_experts)} moved"
    if not any(times):
        return []
    legend = f"  {moves}   {BLOCKS[2]} is a layer's mean, {BLOCKS[-1]} {HOT:g} times it or more"
    rows: list[RenderableType] = [Text(), _line(Text.assemble(("experts", "bold cyan"), legend))]
    for first, last in _bins(len(times), max_rows):
        label = f"layer {first}" if last == first + 1 else f"layer {first}-{last - 1}"
        row = Text(f"{label:12}", "dim")
        for low, high in _bins(len(times[first]), max(1, width - 13)):
            level = _level(max(max(layer[low:high], default=0.0) for layer in times[first:last]))
            row.append(BLOCKS[level], HEAT[level])
        rows.append(_line(row))
    return rows


def _over_mean(loads: Sequence[float]) -> list[float]:
    mean = sum(loads) / len(loads) if loads else 0.0
    return [load / mean if mean else 0.0 for load in loads]


def _level(times: float) -> int:
    return min(len(BLOCKS) - 1, int(len(BLOCKS) * times / HOT))


def _bins(size: int, num_bins: int) -> list[tuple[int, int]]:
    """At most that many ranges over 0 to size, none of them empty, as even as can be."""
    num_bins = min(size, num_bins)
    edges = [size * at // num_bins for at in range(num_bins + 1)] if num_bins else [0]
    return list(pairwise(edges))


def _transfers(state: "RackState") -> list[RenderableType]:
    transfers = state.transfers
    if not (transfers.num_in_flight or transfers.num_moved or transfers.num_failed):
        return []
    line = Text.assemble(
        ("transfers", "bold cyan"),
        f"  {transfers.num_in_flight} in flight, {_bytes(transfers.bytes_per_s)}/s, ",
        f"{_count(transfers.num_moved)} moved ({_bytes(transfers.num_bytes)}), ",
        (f"{_count(transfers.num_failed)} failed", "bold red" if transfers.num_failed else ""),
    )
    return [Text(), _line(line)]


def _events(events: "Sequence[RackEvent]") -> list[RenderableType]:
    if not events:
        return []
    lines = [Text.assemble((_clock(event.time_s), "dim"), f"  {_clean(event.what)}") for event in events]
    return [Text(), _line(Text("events", "bold cyan")), *map(_line, lines)]


def _line(text: Text) -> Text:
    """One line, cut at the terminal's edge."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _clean(text: str) -> str:
    """Names are a server's: what could steer a terminal is not printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _bytes(number: float) -> str:
    unit = 0
    while number >= 999.5 and unit < len(BYTES_UNITS) - 1:  # so that no "1000" is printed
        number, unit = number / 1000, unit + 1
    return f"{number:.1f} {BYTES_UNITS[unit]}" if unit else f"{number:.0f} B"


def _clock(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, tz=UTC).astimezone().strftime("%H:%M:%S")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, MINUTES_PER_HOUR)
    days, hours = divmod(hours, HOURS_PER_DAY)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
