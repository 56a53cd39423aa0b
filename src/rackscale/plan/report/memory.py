"""What a rank's memory holds, by pool, against what the chip has."""

from collections.abc import Mapping, Sequence

from rackscale.plan.report.figures import NONE, gigabytes, percent
from rackscale.plan.report.markup import Markup, element, joined, style
from rackscale.plan.types import MemoryShare

FREE = "free"
REST = "not given to the engine"
SEEN_FROM = 0.005  # of the capacity
KV = "kv"
HUES = 5  # of the style sheet, for what is neither free nor KV
LABELLED_FROM = 0.11  # of the width


def memory(ranks: Mapping[str, Sequence[MemoryShare]], capacity_bytes: Mapping[str, float]) -> Markup:
    """A bar for each kind of rank, and a table of the same. capacity_bytes: of a rank's chip, where known."""
    kinds = _kinds(ranks)
    full = max(
        max((capacity_bytes.get(name, 0.0), sum(share.bytes for share in shares)))
        for name, shares in ranks.items()
    )
    bars = [_bar(name, shares, capacity_bytes.get(name), full, kinds) for name, shares in ranks.items()]
    return element(
        "div", element("div", *bars, class_="memory"), _table(ranks, kinds, capacity_bytes), class_="beside"
    )


def _kinds(ranks: Mapping[str, Sequence[MemoryShare]]) -> dict[str, str]:
    """Classes of the style sheet by what memory is for, in the order of first mention, free last."""
    names = list(dict.fromkeys(share.name for shares in ranks.values() for share in shares))
    names.sort(key=_is_free)
    kinds, hue = {}, 0
    for name in names:
        if _is_free(name):
            kinds[name] = FREE
        elif name.lower().startswith(KV):
            kinds[name] = KV
        else:
            kinds[name] = f"hue-{hue % HUES}"
            hue += 1
    return kinds


def _is_free(name: str) -> bool:
    return name.startswith(FREE)


def _bar(
    name: str, shares: Sequence[MemoryShare], capacity: float | None, full: float, kinds: Mapping[str, str]
) -> Markup:
    ordered = sorted(shares, key=lambda share: list(kinds).index(share.name))
    parts = [
        element(
            "i",
            element("span", share.name) if share.bytes / full >= LABELLED_FROM else None,
            class_=kinds[share.name],
            style=style(width=100 * share.bytes / full),
            title=f"{share.name}: {gigabytes(share.bytes)}",
        )
        for share in ordered
    ]
    used = sum(share.bytes for share in shares if not _is_free(share.name))
    of = sum(share.bytes for share in shares) if capacity is None else capacity
    line = (
        None if capacity is None else element("i", class_="capacity", style=style(left=100 * capacity / full))
    )
    return joined(
        element("b", name),
        element("span", f"{gigabytes(used)} of {gigabytes(of)}, {percent(used / of)}", class_="used"),
        element("div", *parts, line, class_="stack", role="img", aria_label=f"Memory of a {name}"),
    )


def _table(
    ranks: Mapping[str, Sequence[MemoryShare]], kinds: Mapping[str, str], capacity_bytes: Mapping[str, float]
) -> Markup:
    found = {name: {share.name: share.bytes for share in shares} for name, shares in ranks.items()}
    kinds = dict(kinds)
    for name, shares in found.items():
        rest = capacity_bytes.get(name, 0.0) - sum(shares.values())
        if rest > SEEN_FROM * capacity_bytes.get(name, 0.0):
            kinds[REST] = "rest"
            shares[REST] = rest
    head = element("tr", element("td"), *(element("th", name, scope="col") for name in ranks))
    rows = [
        element(
            "tr",
            element("th", element("i", class_=f"swatch {kind}"), what, scope="row"),
            *(
                element("td", gigabytes(shares[what]) if what in shares else NONE, class_="number")
                for shares in found.values()
            ),
        )
        for what, kind in kinds.items()
    ]
    table = element("table", element("thead", head), element("tbody", *rows), class_="legend")
    return element("div", table, class_="scroll")
