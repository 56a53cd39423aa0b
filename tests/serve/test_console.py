"""stderr is the log's alone while a server runs, and everybody's again after it."""

import subprocess
import sys

PROGRAM = """
import json, logging, os, subprocess, sys, threading
from rackscale.serve.console import only_the_log

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
with only_the_log() as stderr:
    os.write(2, b"native\\n")
    print("python", file=sys.stderr)
    logging.info("an event")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'child\\\\n')"], stderr=stderr)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
logging.info("after")
os.write(2, b"native after\\n")
print("python after", file=sys.stderr)
"""


def lines_of(environment):
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, env=environment, check=True)
    return done.stderr.decode().splitlines()


def test_only_the_log(monkeypatch):
    monkeypatch.delenv("DYN_LOG", raising=False)
    lines = lines_of(None)
    assert lines[:3] == ["INFO an event", "child", "CRITICAL nobody caught ZeroDivisionError in a thread"]
    assert lines[-3:] == ["INFO after", "native after", "python after"]
    assert not {"native", "python"} & set(lines)


def test_who_sets_dyn_log_sees_everything(monkeypatch):
    monkeypatch.setenv("DYN_LOG", "info")
    lines = lines_of(None)
    assert {"native", "python", "INFO an event", "child"} <= set(lines)
