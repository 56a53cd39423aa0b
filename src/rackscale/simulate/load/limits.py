"""What a load's numbers must keep to."""

import math

from rackscale.core import SpecError


def positive(what: str, value: float) -> None:
    """Raise SpecError where the value is not a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise SpecError(f"{what} of {value:g} is no number above 0", hint="give one above 0")


def at_least(what: str, value: float, least: float) -> None:
    """Raise SpecError where the value is not a finite number of the least or more."""
    if not (math.isfinite(value) and value >= least):
        raise SpecError(f"{what} of {value:g} is below {least:g}", hint=f"give {least:g} or more")
