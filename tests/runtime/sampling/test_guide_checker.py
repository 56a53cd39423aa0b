"""Guides that would hang or crash whoever compiles them."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rackscale.core import Guide, GuideKind, SpecError
from rackscale.runtime.sampling import JSON_OBJECT, GuideChecker

ENDLESS = Guide(kind=GuideKind.REGEX, source="a?" * 40_000)
DEEP = Guide(
    kind=GuideKind.GRAMMAR,
    source="start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(6000)) + 'r6000: "a"\n',
)


def test_the_child_is_replaced_when_a_guide_ends_it(tokenizer_path: Path) -> None:
    with GuideChecker(tokenizer_path, cpu_limit_s=0.3) as checker:
        checker.check(JSON_OBJECT)
        with pytest.raises(SpecError, match="takes too long") as refused:
            checker.check(ENDLESS)
        assert refused.value.http_status == 400
        checker.check(JSON_OBJECT)
        checker.check(Guide(kind=GuideKind.REGEX, source="a+"))
        with pytest.raises(SpecError, match="too deep"):
            checker.check(DEEP)
        with pytest.raises(SpecError, match="unclosed group"):
            checker.check(Guide(kind=GuideKind.REGEX, source="(a"))


def test_a_child_that_was_killed_is_replaced(tokenizer_path: Path) -> None:
    with GuideChecker(tokenizer_path) as checker:
        checker.check(JSON_OBJECT)
        child = checker.child_pid
        assert child is not None
        gone = os.pidfd_open(child)
        os.kill(child, signal.SIGKILL)
        select.select([gone], [], [], 10)
        os.close(gone)
        checker.check(Guide(kind=GuideKind.REGEX, source="b+"))
        assert checker.child_pid not in (None, child)
    assert checker.child_pid is None


def test_the_child_does_not_outlive_a_killed_parent(tokenizer_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rackscale.runtime.sampling import *\n"
        "checker = GuideChecker(Path(sys.argv[1])); checker.check(JSON_OBJECT)\n"
        "print(checker.child_pid, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tokenizer_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended


def test_the_edge_needs_no_torch(tokenizer_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rackscale.core import Sampling\n"
        "from rackscale.runtime.sampling import check_guide, validate_sampling, JSON_OBJECT\n"
        "check_guide(JSON_OBJECT, Path(sys.argv[1])); validate_sampling(Sampling(), vocab_size=9)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch was loaded'\n"
        "from rackscale.runtime.sampling import Sampler\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tokenizer_path)], check=True)
