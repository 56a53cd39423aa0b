"""The fitted numbers of the cost model: few, named, each with a prior, and the values of a fit."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from rackscale.cost.priors import FACTOR, GROUPS, PRIORS, SHARE

Values = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Parameters:
    """All parameters as fits move them: [K, P], one row for each draw; a single row for the best fit.

    A parameter is moved by the groups that it varies by: a chip's generation, an engine, a format. A group
    that was never measured does not move it.
    """

    names: tuple[str, ...]
    moved: Values  # [K, P]

    def __getitem__(self, name: str) -> Values:
        """[K, 1], without regard to groups. Raises KeyError for an unknown name."""
        return _value(name, self.moved[:, [self._column(name)]])

    def by(self, name: str, *members: Index) -> Values:
        """[K, R]: the parameter for groups by their numbers [R] in `GROUPS`; -1 is one never measured. One
        array for each kind of groups that it varies by, in their order."""
        whole = self.moved[:, [self._column(name)]]
        unknown = np.zeros((len(self.moved), 1))
        for kind, numbers in zip(PRIORS[name].by, members, strict=True):
            columns = [self._column(f"{name}@{member}") for member in GROUPS[kind]]
            offsets = np.concatenate([self.moved[:, columns], unknown], 1)
            whole = whole + offsets[:, numbers]
        return _value(name, whole)

    def _column(self, name: str) -> int:
        return _columns(self.names)[name]


def _value(name: str, moved: Values) -> Values:
    kind = PRIORS[name].kind
    if kind == SHARE:
        return 1 / (1 + np.exp(-moved))
    return np.exp(moved) if kind == FACTOR else moved


@cache
def _columns(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: number for number, name in enumerate(names)}


def all_names() -> tuple[str, ...]:
    """Every parameter, and every group's own part as `name@member`."""
    names: list[str] = []
    for name, prior in PRIORS.items():
        names += [name, *(f"{name}@{member}" for kind in prior.by for member in GROUPS[kind])]
    return tuple(names)


def prior_centre_and_spread(names: Sequence[str]) -> tuple[Values, Values]:
    """[P] each, as fits move them."""
    centres, spreads = [], []
    for name in names:
        base, _, member = name.partition("@")
        prior = PRIORS[base]
        centres.append(0.0 if member else moved_by(base, prior.value))
        spreads.append(prior.between if member else prior.spread)
    return np.array(centres), np.array(spreads)


def moved_by(name: str, value: float) -> float:
    """A parameter's value as fits move it."""
    kind = PRIORS[name].kind
    if kind == SHARE:
        return float(np.log(value / (1 - value)))
    return float(np.log(value)) if kind == FACTOR else value


def from_priors() -> Parameters:
    """The priors' centres: datasheets and published kernels, before any fit."""
    names = all_names()
    return Parameters(names=names, moved=prior_centre_and_spread(names)[0][None])


@cache
def fitted() -> Parameters:
    """The best fit, [1, P], as `fitted/serving.toml` has it."""
    best = _read()["best"]
    return Parameters(names=all_names(), moved=np.array([[best[name] for name in all_names()]]))


@cache
def draws() -> Parameters:
    """Draws [K, P] of the posterior."""
    table = _read()["draws"]
    return Parameters(names=all_names(), moved=np.array([table[name] for name in all_names()]).T)


@cache
def _read() -> Mapping[str, Mapping[str, list[float]]]:
    path = resources.files("rackscale.cost") / "fitted" / "serving.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))
