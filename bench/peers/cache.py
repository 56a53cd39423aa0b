"""Where peers are kept: virtual environments, sources, builds and the models that they run."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from peers.visit import MissingError

DEFAULT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rackscale" / "bench"


class Cache:
    """A folder that outlives runs. What is in it is complete: it is made under another name and moved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def run(self, command: Sequence[str | Path], log: str) -> None:
        """Run a step of a set-up. Raises MissingError with the end of what it said where it fails."""
        path = self.path / f"{log}.log"
        try:
            with path.open("a", encoding="utf-8") as file:
                subprocess.run(
                    [str(word) for word in command], check=True, stdout=file, stderr=subprocess.STDOUT
                )
        except (OSError, subprocess.CalledProcessError) as error:
            last = path.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise MissingError(f"{error}: {' '.join(last)[:200]} (see {path.name} in the cache)") from error

    def environment(self, name: str, packages: Sequence[str], without: Sequence[str] = ()) -> Path:
        """The Python of a virtual environment with these packages, and `without` these that they bring."""
        folder, done = self.path / name, self.path / name / "complete"
        python = folder / "bin" / "python"
        if not done.exists():
            self.run((sys.executable, "-m", "venv", folder), name)
            self.run((python, "-m", "pip", "install", "--quiet", *packages), name)
            if without:
                self.run((python, "-m", "pip", "uninstall", "--quiet", "--yes", *without), name)
            done.touch()
        return python
