"""Guides checked in a process of its own.

Compiling a guide is work of the client's choosing: some of a few kilobytes take the library a
minute, and some overflow its stack, which ends the process. So a child does it, under a limit of
processor time and memory; when a guide ends the child, the guide is refused and the next one gets a
new child. The child ends by itself when its parent is gone.
"""

import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from rackscale.core import Guide, SpecError, decode_json, encode_json
from rackscale.runtime.sampling.guides import check_guide, load_tokenizer

CPU_LIMIT_S: Final = 1.0  # a guide of ordinary size takes 1 to 100 ms
_MEMORY_LIMIT_BYTES: Final = 4 << 30
# Half of what a rank has: what passes here leaves it room.
_STACK_BYTES: Final = 4 << 20
_MAX_PASSED: Final = 1024
_MODULE: Final = "rackscale.runtime.sampling.checker"


class _Verdict(Struct, frozen=True, kw_only=True):
    """Empty: the guide is fine."""

    what: str = ""
    hint: str = ""


class GuideChecker:
    """`check_guide` behind a process boundary, for one tokenizer. May be shared by threads.

    The child is started by the first check and kept. Guides that passed are remembered.
    """

    def __init__(self, tokenizer_path: Path, *, cpu_limit_s: float = CPU_LIMIT_S) -> None:
        self._command = [sys.executable, "-m", _MODULE, str(tokenizer_path), str(cpu_limit_s)]
        self._child: subprocess.Popen[bytes] | None = None
        self._passed: set[Guide] = set()
        self._lock = threading.Lock()

    @property
    def child_pid(self) -> int | None:
        """The child's process id, while there is one."""
        return None if self._child is None else self._child.pid

    def check(self, guide: Guide) -> None:
        """As `check_guide`, and never long. Blocks meanwhile.

        Raises SpecError where it does, and where the guide takes the library too long, too much
        memory or too deep a stack.
        """
        with self._lock:
            if guide in self._passed:
                return
            verdict = self._ask(guide)
            if verdict.what:
                raise SpecError(verdict.what, hint=verdict.hint)
            if len(self._passed) == _MAX_PASSED:
                self._passed.clear()
            self._passed.add(guide)

    def close(self) -> None:
        """End the child. A later check starts another."""
        with self._lock:
            if self._child is not None:
                self._reap(self._child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, guide: Guide) -> _Verdict:
        if self._child is not None and self._child.poll() is not None:
            self._reap(self._child)  # it died between two checks, by no guide's fault
        child = self._child or subprocess.Popen(  # noqa: S603 (this interpreter, this module)
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._child = child
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):  # it died just now: the answer is empty
            child.stdin.write(encode_json(guide) + b"\n")
            child.stdin.flush()
        answer = child.stdout.readline()
        if answer:
            return decode_json(answer, _Verdict)
        cause = _cause(self._reap(child))
        return _Verdict(what=f"the {guide.kind.value} guide {cause}", hint="simplify it")

    def _reap(self, child: subprocess.Popen[bytes]) -> int:
        """Wait for a child that ends; returns its exit code."""
        self._child = None
        with suppress(BrokenPipeError), child:  # closes its pipes, and waits
            pass
        return child.returncode


def _cause(exit_code: int) -> str:
    if exit_code == -signal.SIGPROF:
        return "takes too long to compile"
    return "is nested too deep, or takes too much memory, to compile"


def _serve(tokenizer_path: Path, cpu_limit_s: float) -> None:
    """Answer guides from stdin, a line each, until it is closed."""
    load_tokenizer(tokenizer_path)
    for line in sys.stdin.buffer:
        # SIGPROF's default is to end the process, also inside the library's native code.
        signal.setitimer(signal.ITIMER_PROF, cpu_limit_s)
        verdict = _verdict(decode_json(line, Guide), tokenizer_path)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        sys.stdout.buffer.write(encode_json(verdict) + b"\n")
        sys.stdout.buffer.flush()


def _verdict(guide: Guide, tokenizer_path: Path) -> _Verdict:
    try:
        check_guide(guide, tokenizer_path)
    except SpecError as error:
        return _Verdict(what=error.what, hint=error.hint)
    return _Verdict()


def _main(tokenizer_path: str, cpu_limit_s: str) -> None:
    """The child: serves on a thread, since only a thread's stack can be made smaller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to end
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=_serve, args=(Path(tokenizer_path), float(cpu_limit_s)))
    thread.start()
    thread.join()


if __name__ == "__main__":
    _main(*sys.argv[1:])
