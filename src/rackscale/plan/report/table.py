"""A table that scrolls sideways where it has to."""

from collections.abc import Collection, Sequence

from rackscale.plan.report.markup import Markup, element


def table(names: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int]) -> Markup:
    """numbers: columns that are set to the right."""
    head = element("tr", *(_cell("th", name, number in numbers) for number, name in enumerate(names)))
    body = [
        element("tr", *(_cell("td", text, number in numbers) for number, text in enumerate(row)))
        for row in rows
    ]
    return element(
        "div",
        element("table", element("thead", head), element("tbody", *body), class_="dense"),
        class_="scroll",
    )


def _cell(name: str, text: str, is_number: bool) -> Markup:  # noqa: FBT001 (private, of one table)
    return element(name, text, class_="number" if is_number else None)
