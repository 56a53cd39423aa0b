"""What `rackscale export` was asked for."""

import re
from dataclasses import dataclass
from pathlib import PurePath

from rackscale.core import SpecError
from rackscale.specs import DeploymentFile, GroupEntry

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # RFC 1123, as Kubernetes has it
LONGEST_LABEL = 63
LONGEST_NAME = 24  # the operator appends components and roles, and has pod names within 63


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """name: of the graph; its services and pods begin with it.

    namespace None: that of `kubectl`. ranks_per_host None: all ranks are on one host. model_claim: the
    PersistentVolumeClaim that holds the model's folder; None: the image does.
    """

    name: str
    image: str
    namespace: str | None = None
    ranks_per_host: int | None = None
    model_claim: str | None = None

    def check(self) -> None:
        """Raises SpecError where a name is none that Kubernetes takes, or hosts would have no ranks."""
        for option, value, longest in (
            ("--name", self.name, LONGEST_NAME),
            ("--namespace", self.namespace, LONGEST_LABEL),
            ("--model-claim", self.model_claim, LONGEST_LABEL),
        ):
            if value is not None and not (LABEL.fullmatch(value) and len(value) <= longest):
                raise SpecError(
                    f"{option} {value!r} is no name in Kubernetes",
                    hint=f"give lower-case letters, digits and inner hyphens, at most {longest}",
                )
        if not self.image or not self.image.isprintable() or " " in self.image:
            raise SpecError(f"--image {self.image!r} is no image", hint="give it as REGISTRY/NAME:TAG")
        if self.ranks_per_host is not None and self.ranks_per_host < 1:
            raise SpecError(f"--ranks-per-host is {self.ranks_per_host}", hint="give at least 1")

    def hosts_of(self, group: GroupEntry) -> int:
        """How many hosts one such group spans. Raises SpecError where its ranks fill none evenly."""
        if self.ranks_per_host is None or group.num_ranks <= self.ranks_per_host:
            return 1
        if group.num_ranks % self.ranks_per_host:
            raise SpecError(
                f"--ranks-per-host {self.ranks_per_host} does not divide a group of {group.num_ranks} ranks",
                hint="give a number that divides it",
            )
        return group.num_ranks // self.ranks_per_host

    def spans_hosts(self, file: DeploymentFile) -> bool:
        """Whether the ranks are too many for one host."""
        return self.ranks_per_host is not None and file.num_ranks > self.ranks_per_host


def name_of(model: str) -> str:
    """A graph's name from a model's folder."""
    words = re.sub(r"[^a-z0-9]+", "-", PurePath(model).name.lower())
    return words[:LONGEST_NAME].strip("-") or "rackscale"
