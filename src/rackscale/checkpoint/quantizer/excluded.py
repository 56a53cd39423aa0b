"""Names of modules that stay as they are, shortened to prefixes as ModelOpt writes them."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence


def excluded_globs(kept: Iterable[str], quantised: Iterable[str]) -> list[str]:
    """Globs that match every kept module and no quantised one: of each module the shortest prefix, at a dot,
    under which nothing is quantised, as `prefix*`; as `prefix` and `prefix.*` where `prefix*` would
    also match a quantised module whose name goes on (layers.1 and layers.10); or the whole name."""
    names = sorted(quantised)
    globs: set[str] = set()
    for module in kept:
        globs.update(_shortest(module, names))
    return sorted(globs)


def _shortest(module: str, quantised: Sequence[str]) -> tuple[str, ...]:
    for at, character in enumerate(module):
        if character == ".":
            prefix = module[:at]
            if not _any_starts_with(prefix, quantised):
                return (f"{prefix}*",)
            if not _any_starts_with(f"{prefix}.", quantised) and not _has(prefix, quantised):
                return (prefix, f"{prefix}.*")
    return (module,)


def _any_starts_with(prefix: str, ordered: Sequence[str]) -> bool:
    at = bisect_left(ordered, prefix)
    return at < len(ordered) and ordered[at].startswith(prefix)


def _has(name: str, ordered: Sequence[str]) -> bool:
    at = bisect_left(ordered, name)
    return at < len(ordered) and ordered[at] == name
