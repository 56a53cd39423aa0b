"""What a fleet tells whoever drives it."""

from collections.abc import Sequence

from rackscale.core import GroupId, RackscaleError, StepPlan
from rackscale.runtime.answer import RankAnswer


class FleetEvents:
    """What a fleet tells. A base that does nothing."""

    def group_up(self, group: GroupId) -> None:
        """All ranks of the group take plans."""

    def group_lost(self, group: GroupId, why: str) -> None:
        """No rank of the group lives."""

    def step_done(self, plan: StepPlan, answers: Sequence[RankAnswer]) -> None:
        """The group's oldest step is done; an answer a seat."""

    def loading(self, done: int, total: int) -> None:
        """A host has loaded so many layers."""

    def host_joined(self, host: str, pid: int) -> None:
        """A host is here."""

    def host_hangs(self, host: str, pid: int) -> None:
        """A host does not answer."""

    def broken(self, error: RackscaleError) -> None:
        """Nothing that is tried again would work."""
