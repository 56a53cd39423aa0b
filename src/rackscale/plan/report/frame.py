"""The page around its sections: one file, that loads nothing and may load nothing."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from rackscale import __version__
from rackscale.plan.report.markup import Markup, element, joined


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """key: its address in the page. reading: what it says, in a sentence. wide: over all columns. anchor: how
    the list of sections calls it, None where it does not."""

    key: str
    title: str
    reading: str | Markup | None
    body: Markup
    wide: bool = False
    anchor: str | None

    def drawn(self) -> Markup:
        """A panel."""
        return element(
            "section",
            element("h2", self.title, id=f"{self.key}-title"),
            None if self.reading is None else element("p", self.reading, class_="reading"),
            self.body,
            id=self.key,
            class_="panel wide" if self.wide else "panel",
            aria_labelledby=f"{self.key}-title",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """kind: "plan" or "comparison". asked: the question. answer: a sentence, with its figures in <b>."""

    kind: str
    title: str
    asked: Markup
    answer: Markup
    tiles: Markup


def page(head: Head, sections: Sequence[Section]) -> str:
    """The whole HTML document."""
    folder = files(__package__ or "")
    style, script, text = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html")
    )
    anchors = [element("a", section.anchor, href=f"#{section.key}") for section in sections if section.anchor]
    parts = {
        "{style}": style,
        "{script}": script,
        "{hash}": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "{title}": joined(f"{head.title} · rackscale"),
        "{kind}": joined(head.kind),
        "{version}": joined(__version__),
        "{asked}": head.asked,
        "{answer}": head.answer,
        "{tiles}": head.tiles,
        "{anchors}": joined(*anchors),
        "{sections}": joined(*(section.drawn() for section in sections)),
    }
    return _filled(text, parts)


def _filled(text: str, parts: dict[str, str]) -> str:
    """Each part once and in its place: what a part holds is never looked at."""
    for name, part in parts.items():
        if name in text:
            before, after = text.split(name, 1)
            rest = {other: filling for other, filling in parts.items() if other != name}
            return _filled(before, rest) + part + _filled(after, rest)
    return text
