"""The parts of the pages: numbers, axes, racks, bars."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.plan.report import figures
from rackscale.plan.report.axis import MOST_TICKS, axis_of
from rackscale.plan.report.markup import Markup, element, joined, style
from rackscale.plan.report.memory import memory
from rackscale.plan.report.operators import operators
from rackscale.plan.report.rack import placed, rack
from rackscale.plan.report.waterfall import waterfall
from rackscale.plan.types import MemoryShare, PoolPlan
from rackscale.specs import Role

POSITIVE = st.floats(1e-12, 1e18)


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (figures.plain, 9240.4, "9,240"),
        (figures.plain, 36.3, "36.3"),
        (figures.plain, 36.0, "36"),
        (figures.plain, 0.04213, "0.0421"),
        (figures.plain, 0.0, "0"),
        (figures.plain, float("nan"), figures.NONE),
        (figures.rate, 9240.0, "9,240"),
        (figures.rate, 660_000.0, "0.660 M"),
        (figures.rate, 6.73e6, "6.73 M"),
        (figures.rate, float("inf"), figures.NONE),
        (figures.seconds, 0.0275, "27.5 ms"),
        (figures.seconds, 1.234, "1.23 s"),
        (figures.seconds, 73e-6, "73 \N{MICRO SIGN}s"),
        (figures.seconds, 0.9999, "1.000 s"),
        (figures.seconds, 0.0, "0 s"),
        (figures.seconds, float("nan"), figures.NONE),
        (figures.gigabytes, 71.44e9, "71.4 GB"),
        (figures.gigabytes, 0.5e9, "0.50 GB"),
        (figures.dollars, 0.0559, "$0.0559"),
        (figures.exponent, 0.618, "0.62"),
        (figures.exponent, -0.07, f"{figures.MINUS}0.07"),
        (figures.exponent, -0.001, "0.00"),
        (figures.percent, 0.544, "54 %"),
        (figures.percent, 0.031, "3.1 %"),
        (figures.percent, 0.0002, "< 0.1 %"),
        (figures.percent, float("nan"), figures.NONE),
        (figures.change, 0.77, f"{figures.MINUS}23 %"),
        (figures.change, 1.1, "+10 %"),
        (figures.change, 3.0, f"{figures.TIMES}3"),
        (figures.change, float("nan"), figures.NONE),
    ],
)
def test_numbers_are_written_short(form, value, text):
    assert form(value) == text


def test_units_have_prefixes():
    assert figures.scaled(4.1e14, "FLOP/s") == "410 TFLOP/s"
    assert figures.scaled(0.0, "B") == "0 B"
    assert figures.scaled(float("inf"), "B") == figures.NONE
    assert figures.plural(1, "group") == "1 group"
    assert figures.plural(1200, "group") == "1,200 groups"


@given(st.text(), st.text())
def test_text_is_escaped_and_markup_is_not_escaped_twice(content, attribute):
    inner = element("b", content, title=attribute)
    assert isinstance(inner, Markup)
    assert "<" not in str(inner).removeprefix("<b").removesuffix("</b>")
    assert inner.count('"') == 2
    assert joined(inner, None) == inner
    assert element("p", inner) == f"<p>{inner}</p>"


def test_attributes_are_named_as_in_html():
    assert element("i", class_="a", data_role="b", title=None) == '<i class="a" data-role="b"></i>'
    assert style(left=12.5, var_columns=4) == "left:12.5%;--columns:4"


@given(st.lists(POSITIVE, min_size=1, max_size=8))
def test_an_axis_shows_its_values_in_order_with_few_ticks(values):
    axis = axis_of(values)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert places[0] >= 0
    assert places[-1] <= 100
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= MOST_TICKS + 1
    assert ticks == sorted(set(ticks))
    assert all(axis.low <= tick <= axis.high * (1 + 1e-9) for tick in ticks)


def test_an_axis_is_logarithmic_where_values_are_far_apart():
    assert axis_of([10, 200]).log
    assert not axis_of([10, 20]).log
    assert axis_of([10, 20]).low == 0
    assert axis_of([0.0, float("nan")]).high > 0
    axis = axis_of([1, 100], log=True)
    assert axis.at(10) == pytest.approx(50)
    assert {1, 10, 100} <= set(axis.ticks())


POOLS = st.lists(
    st.builds(
        PoolPlan,
        role=st.sampled_from([Role.PREFILL, Role.DECODE]),
        groups=st.integers(1, 9),
        ranks=st.integers(1, 160),
        tp=st.just(1),
        ep=st.just(1),
    ),
    min_size=1,
    max_size=3,
)


@given(POOLS, st.sampled_from([4, 8, 72]))
def test_groups_are_placed_whole_where_they_fit(pools, domain_chips):
    domains = placed(pools, domain_chips)
    assert sum(chips for domain in domains for _, _, chips in domain.parts) == sum(
        pool.chips for pool in pools
    )
    for domain in domains:
        assert domain.free == domain_chips - sum(chips for _, _, chips in domain.parts)
        assert domain.free >= 0
        for pool, _, chips in domain.parts:
            assert chips in {pool.ranks, domain_chips, pool.ranks % domain_chips}


def test_every_chip_is_a_square(plan, system):
    html = rack(plan.best.pools, system)
    for role, chips in ((Role.PREFILL, 8), (Role.DECODE, 64)):
        groups = re.findall(f'data-role="{role}"[^>]*><span>.*?</div>', html)
        assert sum(group.count("<i></i>") for group in groups) == chips
    assert "spare" not in html
    assert "72 of 72 chips" in html


def test_spare_chips_are_shown_and_domains_alike_are_drawn_once(system):
    pools = [
        PoolPlan(role=Role.PREFILL, groups=1, ranks=100, tp=1, ep=100),
        PoolPlan(role=Role.DECODE, groups=3, ranks=36, tp=1, ep=36),
    ]
    html = rack(pools, system)
    assert "prefill 1, 28 of 100 chips" in html
    assert "spare: 8 chips" in html
    alike = rack([PoolPlan(role=Role.DECODE, groups=5, ranks=72, tp=1, ep=72)], system)
    assert "Domains 1 to 5, each" in alike
    assert alike.count("<i></i>") == 72
    assert "Domains 1 and 2, each" in rack(
        [PoolPlan(role=Role.MIXED, groups=2, ranks=72, tp=1, ep=1)], system
    )


def test_memory_is_drawn_to_scale_with_the_capacity():
    shares = [MemoryShare(name="free", bytes=20e9), MemoryShare(name="KV cache", bytes=60e9)]
    html = memory({"Decode rank": shares}, {"Decode rank": 100e9})
    widths = dict(re.findall(r'class="(kv|free)" style="width:([\d.]+)%"', html))
    assert {kind: float(width) for kind, width in widths.items()} == {"kv": 60, "free": 20}
    assert 'class="capacity" style="left:100%"' in html
    assert html.index('class="kv"') < html.index('class="free"')
    assert "60.0 GB of 100.0 GB, 60 %" in html
    assert "not given to the engine" in html
    assert "not given to the engine" not in memory({"Decode rank": shares}, {})


def test_operators_are_sorted_and_coloured_by_what_binds(plan):
    shown = plan.best.operators[Role.DECODE]
    html = operators(shown)
    widths = [
        float(width) for width in re.findall(r'class="track"><i class="[^"]*" style="width:([\d.]+)%', html)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 100
    assert len(widths) == len(shown) - 1
    assert "No time: attention all-reduce." in html
    assert 'class="bound tensor-cores"' in operators(plan.best.operators[Role.PREFILL])
    assert "No operator takes time here." in operators([])


def test_bars_of_the_waterfall_touch(comparison):
    html = waterfall(comparison.waterfall, "one", "two", comparison.ratio.per_mw)
    bars = re.findall(r'<li class="(\w+)">.*?class="bar" style="left:([\d.]+)%;width:([\d.]+)%"', html)
    assert [kind for kind, _, _ in bars] == ["start", *["gain"] * 6, "loss", "total"]
    spans = [(float(left), float(left) + float(width)) for _, left, width in bars]
    at = spans[0][1]
    for (kind, _, _), (left, right) in zip(bars[1:-1], spans[1:-1], strict=True):
        before, after = (left, right) if kind == "gain" else (right, left)
        assert before == pytest.approx(at, abs=0.02)
        at = after
    assert spans[-1] == (spans[0][1], pytest.approx(at, abs=0.02))
