"""The host's memory as a tier for caches: what has been read before comes back instead of being computed."""

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.estimate import Estimate
from rackscale.cost.work import Work

Array = NDArray[np.float64]


def cache_read(work: Work, sequences: Array, tokens: Array) -> Estimate:
    """So many tokens of each of a group's sequences, from the host's memory into a rank's.

    Over the link that a chip has to its host, at the datasheet's rate (NVLink-C2C of a Grace host is shared
    by two chips; the catalog has each one's half); every rank of an attention reads what it keeps.
    """
    own = np.maximum(sequences / work.layouts.attentions, 1.0)
    kept = work.shape.kv_bytes_per_token(1.0) * work.precision.kv_bytes
    moved = own * tokens * kept / np.minimum(work.layouts.tp, work.shape.kv_split)
    return Estimate(seconds=moved / work.chips.host_bytes_per_s, bytes_hbm=moved, bytes_link=moved)
