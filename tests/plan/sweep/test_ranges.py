"""What `--vary` takes."""

import pytest

from rackscale.core import SpecError
from rackscale.plan.sweep import read_range


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("system.domain=8..64", (8, 16, 32, 64)),
        ("system.domain=8..576", (8, 16, 32, 64, 128, 256, 512, 576)),
        ("model.experts=64..1024/3", (64, 256, 1024)),
        ("isl=8192, 1024", (8192, 1024)),
        ("system.hbm_bytes=100GB..0.4TB", (1e11, 2e11, 4e11)),
        ("system.link=450e9,900GB", (450e9, 900e9)),
        ("model.granularity=0.5,1,2", (0.5, 1, 2)),
        ("model.top_k=1..2/9", (1, 2)),
        ("system=hgx-h200,gb200-nvl72", ("hgx-h200", "gb200-nvl72")),
        ("isl=5", (5,)),
    ],
)
def test_values(text, values):
    axis, found = read_range(text)
    assert axis.path == text.partition("=")[0]
    assert found == pytest.approx(values) if not axis.names else found == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("system.domain", "has no range"),
        ("system.domain=", "has no range"),
        ("system.domian=8..72", "give system.domain"),
        ("system.domain=8..x", "x in --vary"),
        ("system.domain=..8", "nothing in --vary"),
        ("system.domain=8..", "nothing in --vary"),
        ("system.domain=1.2.3", "1.2.3 in --vary"),
        ("system.domain=-8..72", "no number above 0"),
        ("system.domain=0..72", "no number above 0"),
        ("system.domain=72..8", "does not rise"),
        ("system.domain=8..8", "does not rise"),
        ("system.domain=8,16..32", "both a list and a range"),
        ("system.domain=8..72/1", "asks for 1 values"),
        ("system.domain=8..72/many", "asks for many values"),
        ("system.domain=8..72/", "asks for no values"),
        ("system.domain=8..1e9", "from 1 to 4096"),
        ("system.link=1..1e20", "doubles 67 times"),
        ("system.hbm_bytes=40parsecs", "no number above 0"),
        ("isl=" + ",".join(str(number) for number in range(1, 100)), "at most 64"),
    ],
)
def test_what_makes_no_sense(text, words):
    with pytest.raises(SpecError, match=words):
        read_range(text)
