"""Every example runs and prints what stands beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS_A_SERVER = {"chat"}  # run by tests/serve, which has one


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example(path):
    expected = path.with_suffix(".out")
    assert expected.exists(), "an example has its output beside it"
    if path.stem in NEEDS_A_SERVER:
        compile(path.read_text(), path, "exec")
        return
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == expected.read_text()
