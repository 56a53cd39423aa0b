"""What a group's steps cost, from those that were measured: a base, and something for each prompt token.

A step takes base_s + tokens * per_token_s. Both are fitted by least squares over recent steps, of which each
counts less the older it is. Decodes are part of the base: it is what the running users see between two
tokens.
"""

HALF_LIFE_STEPS = 200.0  # a load that changes within seconds is followed, a single slow step is not
DECAY = 0.5 ** (1 / HALF_LIFE_STEPS)
MIN_STEPS = 8  # fewer say nothing


class StepCosts:
    """Faded sums of a linear fit."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self.num_steps = 0

    def add(self, num_prompt_tokens: int, seconds: float) -> None:
        """A step with so many prompt tokens took so long."""
        x, y = float(num_prompt_tokens), seconds
        self.num_steps += 1
        self._weight = self._weight * DECAY + 1
        self._x = self._x * DECAY + x
        self._y = self._y * DECAY + y
        self._xx = self._xx * DECAY + x * x
        self._xy = self._xy * DECAY + x * y

    @property
    def known(self) -> bool:
        """Whether the fit means anything: steps with and without prompt tokens, or with few and many."""
        return self.num_steps >= MIN_STEPS and self._spread > 0

    @property
    def _spread(self) -> float:
        spread = self._weight * self._xx - self._x * self._x
        return spread if spread > 1e-9 * self._weight * self._xx else 0.0

    @property
    def per_token_s(self) -> float:
        """Seconds that a prompt token adds to a step; at least 0. Where all steps have as many, all of their
        time is taken to be for these. 0 where nothing is known."""
        if not self._spread:
            return self._y / self._x if self._x else 0.0
        return max(0.0, (self._weight * self._xy - self._x * self._y) / self._spread)

    @property
    def base_s(self) -> float:
        """Seconds of a step without prompt tokens; at least 0. 0 where nothing is known."""
        if not self._weight:
            return 0.0
        return max(0.0, (self._y - self.per_token_s * self._x) / self._weight)
