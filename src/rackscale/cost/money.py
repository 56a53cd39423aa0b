"""What tokens cost where chips are paid by the hour, whether they are busy or not."""

from collections.abc import Mapping

from rackscale.core import SpecError

SECONDS_PER_HOUR = 3600.0
TOKENS_PER_MTOK = 1e6


def usd_per_hour_of(usd_per_chip_hour: Mapping[str, float], name: str) -> float:
    """A chip-hour's price. Raises SpecError for a tier that the system has no price for."""
    if name not in usd_per_chip_hour:
        tiers = ", ".join(usd_per_chip_hour)
        hint = f"give one of {tiers}" if tiers else "add one to a system file of your own"
        raise SpecError(f"price {name} is not known", hint=hint)
    return usd_per_chip_hour[name]


def usd_per_mtok(tokens_per_s_per_chip: float, usd_per_chip_hour: float) -> float:
    """Dollars for a million tokens, input and output counted alike."""
    return usd_per_chip_hour / (tokens_per_s_per_chip * SECONDS_PER_HOUR) * TOKENS_PER_MTOK
