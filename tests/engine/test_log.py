import pytest
from world import request, small

from rackscale.core import Arrive, Seconds, SpecError
from rackscale.engine import build, entry_line, header_line, read_entry, read_header

EVENT = Arrive(request=request())
LINE = entry_line(Seconds(1.5), EVENT, build(small()).handle(EVENT, Seconds(1.5)))


def test_a_header_says_of_what_deployment_a_log_is():
    assert read_header(header_line(small())) == small()


def test_an_entry_says_when_what_led_to_what():
    entry = read_entry(LINE, 2)
    assert (entry.now, entry.event) == (1.5, EVENT)
    assert [type(command).__name__ for command in entry.commands] == ["RunStep", "RunStep"]
    assert LINE.count(b"\n") == 1


def test_a_line_that_was_not_written_to_its_end_is_none():
    assert read_entry(LINE[:-1], 2) is None
    assert read_entry(b"", 2) is None


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b"not json\n", b"\xff\xfe\n", b'{"deployment": {"model": 3}}\n']
)
def test_what_is_no_header(line):
    with pytest.raises(SpecError, match="line 1 is no log header"):
        read_header(line)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        header_line(small()),
        LINE.replace(b'"Arrive"', b'"Depart"'),
        LINE.replace(b'"rows":[0]', b'"rows":["x"]'),
        LINE.replace(b'"rows":[0]', b'"rows":[9999999999]'),
    ],
)
def test_a_damaged_entry_is_named(line):
    with pytest.raises(SpecError, match="line 7 is no log entry"):
        read_entry(line, 7)
