"""What a report must know of a system to draw it."""

from typing import Protocol


class Chip(Protocol):
    """hbm_bytes: that the driver gives of one chip."""

    @property
    def hbm_bytes(self) -> float: ...


class System(Protocol):
    """A `SystemSpec` is one. domain_chips: chips that a scale-up fabric joins."""

    @property
    def title(self) -> str: ...

    @property
    def domain_chips(self) -> int: ...

    @property
    def chip(self) -> Chip: ...
