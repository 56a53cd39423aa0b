import pytest
from world import World, small

from rackscale.core import SpecError
from rackscale.engine import replay


@pytest.fixture(scope="module")
def log():
    world = World(small(num_blocks=10, groups=2))
    for name in "abcd":
        world.arrive(name, prompt=[ord(name)] * 9, max_tokens=9, stop_token_ids=(4,))
    world.lose(0)
    world.cancel("b")
    world.join(0)
    world.run()
    return world.log


def test_a_log_gives_its_commands_again(log):
    report = replay(log)
    assert report.same
    assert report.events == len(log) - 1
    assert not report.truncated


def test_a_difference_is_shown(log):
    at = next(number for number, line in enumerate(log) if b'"Emit"' in line)
    changed = log.copy()
    changed[at] = changed[at].replace(b'"Emit","requests":["', b'"Emit","requests":["not-')
    report = replay(changed)
    assert not report.same
    assert report.line == at + 1
    assert report.events == at
    assert '"requests":["not-' in report.expected
    assert '"requests":["not-' not in report.actual


def test_a_killed_writers_last_line_is_left_out_and_noted(log):
    report = replay([*log[:-1], log[-1][:20]])
    assert report.same
    assert report.truncated
    assert report.events == len(log) - 2


def test_a_log_without_events_is_the_same():
    assert replay(World(small()).log).events == 0


def test_an_empty_file_is_no_log():
    with pytest.raises(SpecError, match="line 1 is no log header"):
        replay([])


def test_an_event_that_cannot_have_happened_is_named(log):
    at = next(number for number, line in enumerate(log) if b'"StepDone"' in line)
    with pytest.raises(SpecError, match=f"line {at + 2}: group . answered step"):
        replay([*log[: at + 1], log[at], *log[at + 1 :]])


def test_a_deployment_that_cannot_live_is_no_log(log):
    with pytest.raises(SpecError, match="block_size 0"):
        replay([log[0].replace(b'"block_size":4', b'"block_size":0')])
