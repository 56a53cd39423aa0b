"""A few hundred requests while processes die all around; `make chaos` is the same for longer."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = ("--requests", "200", "--kills", "10")


def test_nobody_notices_and_nothing_is_left():
    done = subprocess.run(
        [sys.executable, "tests/chaos/chaos.py", *WORDS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "tests/serve", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=False,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert report["kills"] == 10
    assert not report["tracebacks"]
