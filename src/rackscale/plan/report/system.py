"""What a report must know of a system to draw it."""

from typing import Protocol


class Chip(Protocol):
    """hbm_bytes: that the driver gives of one chip."""

    @property
    def hbm_bytes(self) -> float: ...


class System(Protocol):
    """A `SystemSpec` is one. domain_chips: chips that a scale-up fabric joins. announced: not shipping."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def announced(self) -> bool: ...

    @property
    def domain_chips(self) -> int: ...

    @property
    def chip(self) -> Chip: ...


def system_words(system: System) -> str:
    """Its title, if it has one, and whether one can have it."""
    title = system.title or system.name
    return f"{title}, as announced" if system.announced else title
