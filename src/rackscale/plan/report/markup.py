"""HTML put together from elements: what is text is escaped, always."""

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """An element with its end. Children that are `Markup` stay as they are, others are text.

    An attribute that is None is left out; `class_` means class, and data_role data-role.
    """
    start = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{start}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Markup:
    """One after the other, without an element around."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(child) for child in children if child is not None
        )
    )


def style(**properties: float) -> str:
    """Places in percent: left=12.5 gives `left:12.5%`. A name with var_ is a custom property, plain."""
    return ";".join(
        f"--{name.removeprefix('var_')}:{value:.4g}" if name.startswith("var_") else f"{name}:{value:.4g}%"
        for name, value in properties.items()
    )
