"""What a plan gets the most of, as a quantity of a point."""

from dataclasses import dataclass

from rackscale.plan.types import Band, Objective, PlanPoint


@dataclass(frozen=True, slots=True)
class Goal:
    """unit: as an axis names it."""

    objective: Objective
    unit: str

    def of(self, point: PlanPoint) -> Band:
        """Power and price of a chip are given, so that the interval is the throughput's, in proportion."""
        rate = point.tokens_per_s_per_chip
        match self.objective:
            case Objective.CHIP:
                return rate
            case Objective.MW:
                value = point.tokens_per_s_per_mw
            case Objective.USD:
                value = 1e6 / point.usd_per_mtok
        return Band(value=value, low=value * rate.low / rate.value, high=value * rate.high / rate.value)


GOALS = {
    Objective.CHIP: Goal(Objective.CHIP, "tokens/s per chip"),
    Objective.MW: Goal(Objective.MW, "tokens/s per MW"),
    Objective.USD: Goal(Objective.USD, "tokens per dollar"),
}
