import pytest

from rackscale.core import CapacityError, QueueFullError, RackscaleError, RankLostError, SpecError


@pytest.mark.parametrize(
    ("kind", "exit_code", "http_status"),
    [
        (RackscaleError, 1, 500),
        (SpecError, 2, 400),
        (CapacityError, 2, 429),
        (QueueFullError, 2, 503),
        (RankLostError, 1, 503),
    ],
)
def test_the_family(kind, exit_code, http_status):
    error = kind("it broke", hint="mend it")
    assert isinstance(error, RackscaleError)
    assert str(error) == "it broke: mend it"
    assert (error.exit_code, error.http_status) == (exit_code, http_status)


def test_without_a_hint_it_says_what_alone():
    assert str(SpecError("it broke")) == "it broke"


def test_a_full_queue_says_when_to_come_back():
    assert QueueFullError("full", retry_after_s=2.5).retry_after_s == 2.5
    assert issubclass(QueueFullError, CapacityError)
