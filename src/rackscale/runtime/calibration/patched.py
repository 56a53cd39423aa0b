"""A checkpoint some of whose tensors are others."""

from torch import Tensor

from rackscale.checkpoint import Checkpoint


class Patched(Checkpoint):
    """patches: decoded tensors by role, in place of the file's."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint.metadata)
        self.patches: dict[str, Tensor] = {}

    def tensor(self, role: str) -> Tensor:
        """See `Checkpoint`."""
        patch = self.patches.get(role)
        return super().tensor(role) if patch is None else patch
