"""Random numbers by a seed."""

import numpy as np

from rackscale.core import SpecError


def generator(*seed: int) -> np.random.Generator:  # noqa: TID251 (a seed is the argument)
    """A generator of its own for each seed: the same numbers for the same. Raises SpecError below 0."""
    if min(seed) < 0:
        raise SpecError(f"a seed of {min(seed)} is below 0", hint="give a seed of 0 or more")
    return np.random.default_rng(seed)  # noqa: TID251 (a seed is the argument)
