from itertools import pairwise
from pathlib import Path

import pytest

from rackscale.core import SpecError
from rackscale.simulate.load import Arrival, read_azure

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROW = "2023-11-16 18:17:03.9799600,480,10"
SHARED = Path(__file__).parents[4] / "shared" / "traces" / "azure_code_2023.csv"


def write(tmp_path, *lines, end="\n"):
    path = tmp_path / "trace.csv"
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def read(path, *, speed=1.0, max_prompt=1000):
    return list(read_azure(path, max_prompt=max_prompt, speed=speed))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_times_count_from_the_first(tmp_path, end):
    arrivals = read(write(tmp_path, HEADER, ROW, "2023-11-16 18:17:05.4799600,31,8", end=end), speed=3)
    assert arrivals == [Arrival(0.0, 480, 10), Arrival(0.5, 31, 8)]


def test_zones_are_read(tmp_path):
    path = write(tmp_path, HEADER, ROW, "2023-11-16 18:17:03.979960+00:00,31,8")
    assert read(path)[1].at_s == 0


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "not three fields"),
        ("2023-11-16 18:17:04,5", "not three fields"),
        ("2023-11-16 18:17:04,,5", "not three fields"),
        ("2023-11-16 18:17:04,5,5,5", "not three fields"),
        ("2023-11-16 18:17:04,5.5,5", "no whole number"),
        ("2023-11-16 18:17:04,-5,5", "-5 tokens of prompt"),
        ("2023-11-16 18:17:04,1001,5", "passes the limit of 1000"),
        ("yesterday,5,5", "yesterday is no time"),
        ("2023-11-16 18:17:03.5,5,5", "is negative"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, what):
    with pytest.raises(SpecError, match=what) as error:
        read(write(tmp_path, HEADER, ROW, line))
    assert "trace.csv, line 3: " in str(error.value)


def test_falling_times_are_named(tmp_path):
    later, earlier = "2023-11-16 18:17:09,5,5", "2023-11-16 18:17:08,5,5"
    with pytest.raises(SpecError, match=r"line 4: .* comes after"):
        read(write(tmp_path, HEADER, ROW, later, earlier))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(SpecError, match="line 1: no header"):
        read(write(tmp_path, ROW))
    for lines in ([], [HEADER]):
        with pytest.raises(SpecError, match="holds no requests"):
            read(write(tmp_path, *lines))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared traces are not here")
def test_the_shared_trace():
    arrivals = read(SHARED, max_prompt=131072)
    assert len(arrivals) == 8819
    assert arrivals[-1] == Arrival(pytest.approx(3435.948056), 549, 173)
    assert all(a.at_s <= b.at_s for a, b in pairwise(arrivals))
