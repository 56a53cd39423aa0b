"""Parameters that are asked for the same values a thousand times."""

from dataclasses import dataclass, field
from typing import Self

from rackscale.cost import Parameters
from rackscale.cost.parameters import Index, Values


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Remembered(Parameters):
    """The same parameters; what was looked up once is kept, by the name and the groups."""

    kept: dict[tuple[str | bytes, ...], Values] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Parameters) -> Self:
        """Those parameters."""
        return cls(names=parameters.names, moved=parameters.moved)

    def by(self, name: str, *members: Index) -> Values:
        key: tuple[str | bytes, ...] = (name, *(numbers.tobytes() for numbers in members))
        found = self.kept.get(key)
        if found is None:
            found = self.kept[key] = Parameters.by(self, name, *members)
        return found
