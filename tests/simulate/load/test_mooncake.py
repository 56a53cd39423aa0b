import json
from itertools import pairwise
from pathlib import Path

import pytest

from rackscale.core import SpecError
from rackscale.simulate.load import Arrival, read_mooncake

ROW = {"timestamp": 1500, "input_length": 600, "output_length": 50, "hash_ids": [0, 7]}
SHARED = Path(__file__).parents[4] / "shared" / "traces" / "mooncake_conversation.jsonl"


def write(tmp_path, *rows):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def read(path, *, max_prompt=1000, speed=1.0):
    return list(read_mooncake(path, max_prompt=max_prompt, speed=speed))


def test_a_line_is_an_arrival(tmp_path):
    assert read(write(tmp_path, ROW)) == [Arrival(1.5, 600, 50, (0, 7))]


def test_speed_divides_times(tmp_path):
    assert read(write(tmp_path, ROW, ROW | {"timestamp": 3000}), speed=10)[1].at_s == pytest.approx(0.3)


def test_a_prompt_without_ids_shares_nothing(tmp_path):
    assert read(write(tmp_path, ROW | {"hash_ids": []}))[0].blocks == ()


def test_lines_are_read_as_they_are_asked_for(tmp_path):
    arrivals = read_mooncake(write(tmp_path, ROW, "broken"), max_prompt=1000)
    assert next(arrivals).num_prompt == 600
    with pytest.raises(SpecError, match=r"trace\.jsonl, line 2"):
        next(arrivals)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ({name: ROW[name] for name in ROW if name != "output_length"}, "output_length is missing"),
        ({name: ROW[name] for name in ROW if name != "hash_ids"}, "hash_ids is missing"),
        (ROW | {"input_length": 600.5}, "input_length is no whole number"),
        (ROW | {"input_length": True}, "input_length is no whole number"),
        (ROW | {"timestamp": None}, "timestamp is no whole number"),
        (ROW | {"timestamp": 10**400}, "timestamp is out of range"),
        (ROW | {"timestamp": -1}, "negative"),
        (ROW | {"timestamp": 1499}, "comes after 1.5 s"),
        (ROW | {"output_length": 0}, "0 of answer"),
        (ROW | {"input_length": 1_000_000}, "passes the limit of 1000"),
        (ROW | {"hash_ids": [0]}, "1 hash_ids for a prompt of 600"),
        (ROW | {"hash_ids": [0, "a"]}, "no list of whole numbers"),
        (ROW | {"hash_ids": None}, "no list of whole numbers"),
    ],
)
def test_bad_lines_are_named(tmp_path, row, what):
    with pytest.raises(SpecError, match=what) as error:
        read(write(tmp_path, ROW, row))
    assert "trace.jsonl, line 2: " in str(error.value)
    assert error.value.hint
    assert "\n" not in str(error.value)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(SpecError, match="holds no requests"):
        read(write(tmp_path))
    with pytest.raises(SpecError, match="cannot be read"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is no text"):
        read(tmp_path / "bytes")


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_speeds_are_above_0(tmp_path, speed):
    with pytest.raises(SpecError, match="speed"):
        read(write(tmp_path, ROW), speed=speed)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared traces are not here")
def test_the_shared_trace():
    arrivals = read(SHARED, max_prompt=131072)
    assert len(arrivals) == 12031
    assert arrivals[-1].at_s == pytest.approx(3536.999)
    assert max(arrival.num_prompt for arrival in arrivals) == 126195
    assert all(a.at_s <= b.at_s for a, b in pairwise(arrivals))
    seen = {block for arrival in arrivals for block in arrival.blocks}
    assert len(seen) < sum(len(arrival.blocks) for arrival in arrivals)
