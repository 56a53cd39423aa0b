"""Both pages without a browser: whole, alone in the world, and with every number of what they show."""

import base64
import hashlib
import math
import re
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from html.parser import HTMLParser

import pytest

from rackscale.plan.report import comparison_page, plan_page
from rackscale.plan.report.figures import (
    dollars,
    gigabytes,
    interval,
    plain,
    rate,
    scaled,
    seconds,
    spread,
    times,
)
from rackscale.plan.report.sweep_page import sweep_page
from rackscale.plan.types import Objective

VOID = {"meta", "link"}
EVIL = "<img src=x onerror=alert(1)></script></style><script>alert(1)</script>\"'&{sections}{style}"
MOST_BYTES = 300_000


class Page(HTMLParser):
    """What a page holds: elements with their attributes, texts, and anything left open or closed twice."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts, self.faults = [], [], [], []
        self.feed(html)
        self.close()
        self.faults += self.open
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.texts.append(re.sub("[ \n]+", " ", data).strip(" "))

    def of_class(self, name):
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]


def hostile(value):
    """The same with every name replaced by one that wants to be code."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return EVIL
    if isinstance(value, tuple):
        return tuple(hostile(part) for part in value)
    if isinstance(value, dict):
        return {key: hostile(part) for key, part in value.items()}
    if is_dataclass(value):
        return replace(value, **{field.name: hostile(getattr(value, field.name)) for field in fields(value)})
    return value


@pytest.fixture(params=["plan", "comparison", "sweep"])
def html(request, plan, system, comparison, systems, sweep):
    match request.param:
        case "plan":
            return plan_page(plan, system)
        case "comparison":
            return comparison_page(comparison, systems)
        case _:
            return sweep_page(sweep)


def test_a_page_is_whole_and_small(html):
    page = Page(html)
    assert page.faults == []
    assert html.startswith("<!doctype html>")
    assert len(html.encode()) < MOST_BYTES
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    anchors = {attrs["href"][1:] for tag, attrs in page.elements if tag == "a"}
    assert anchors <= set(ids)
    assert {attrs["aria-labelledby"] for tag, attrs in page.elements if tag == "section"} <= set(ids)


def test_a_page_loads_nothing_and_says_so_to_the_browser(html):
    assert not re.findall(r"https?:|[\"'(]//|@import|url\(", html)
    loading = [
        attrs for _, attrs in Page(html).elements if attrs.keys() & {"src", "srcset", "action", "data"}
    ]
    assert loading == []
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_names_are_only_text(plan, system, comparison, systems, sweep):
    pages = [
        (plan_page(plan, system), plan_page(hostile(plan), hostile(system))),
        (
            comparison_page(comparison, systems),
            comparison_page(
                replace(
                    hostile(comparison),
                    points={name: hostile(one) for name, one in comparison.points.items()},
                ),
                {name: hostile(system) for name, system in systems.items()},
            ),
        ),
    ]
    pages.append((sweep_page(sweep), sweep_page(hostile(sweep))))
    for tame, wild in pages:
        page = Page(wild)
        assert page.faults == []
        assert EVIL in page.text
        tags = {tag for tag, _ in page.elements}
        assert tags <= {tag for tag, _ in Page(tame).elements}
        assert len(re.findall("<script>", wild)) == 1
        assert not any(key.startswith("on") for _, attrs in page.elements for key in attrs)


def test_every_number_of_a_plan_is_on_its_page(plan, system):
    page = Page(plan_page(plan, system))
    shown = [plan.best, *plan.pareto, *(other.deployment for other in plan.alternatives)]
    wanted = [f"{plan.isl:,}", f"{plan.osl:,}", f"{plan.searched:,}", plain(plan.interactivity)]
    for one in shown:
        point = one.point
        wanted += [rate(point.tokens_per_s_per_chip.value), interval(point.tokens_per_s_per_chip, rate)]
        wanted += [
            seconds(point.ttft_s.value),
            plain(1 / point.tpot_s.value),
            one.binding,
            one.weights.upper(),
        ]
    for one in plan.pareto:
        point = one.point
        wanted += [seconds(point.tpot_s.value), seconds(point.ttft_p99_s), plain(point.usd_per_mtok)]
        wanted += [plain(point.chips), plain(point.concurrency)]
    point = plan.best.point
    wanted += [interval(point.tpot_s, seconds), interval(point.ttft_s, seconds), seconds(point.tpot_p99_s)]
    wanted += [rate(point.tokens_per_s_per_mw), dollars(point.usd_per_mtok)]
    wanted += [rate(point.output_tokens_per_s_per_chip), *(other.why_not for other in plan.alternatives)]
    for shares in plan.best.memory.values():
        wanted += [text for share in shares for text in (share.name, gigabytes(share.bytes))]
    for operators in plan.best.operators.values():
        for operator in operators:
            wanted += [operator.name, seconds(operator.seconds), operator.bound, operator.formula]
            wanted += [scaled(operator.flops, "FLOP"), scaled(operator.bytes_hbm, "B"), operator.source]
    for pool in plan.best.pools:
        wanted += [plain(pool.batch_per_rank or 0), plain(pool.batch_tokens), plain(pool.redundant_experts)]
    assert [text for text in wanted if text not in page.text] == []


def test_every_number_of_a_comparison_is_on_its_page(comparison, systems):
    page = Page(comparison_page(comparison, systems))
    wanted = [comparison.baseline, comparison.price, plain(comparison.interactivity)]
    for band in (comparison.ratio.per_chip, comparison.ratio.per_mw, comparison.ratio.per_usd):
        wanted += [times(band.value), interval(band, plain)]
    for step in comparison.waterfall:
        wanted += [
            step.step,
            times(step.factor),
            times(step.cumulative),
            spread(plain(step.low), plain(step.high)),
        ]
    for point in comparison.curve:
        wanted += [
            plain(point.interactivity),
            times(point.per_chip),
            times(point.per_mw),
            times(point.per_usd),
        ]
    for one in comparison.points.values():
        wanted += [rate(one.point.tokens_per_s_per_chip.value), dollars(one.point.usd_per_mtok)]
        wanted += [seconds(one.point.ttft_p99_s), rate(one.point.tokens_per_s_per_mw)]
    assert [text for text in wanted if text not in page.text] == []


@pytest.mark.parametrize("kind", ["sweep", "sweep_of_two"])
def test_every_number_of_a_sweep_is_on_its_page(kind, request):
    sweep = request.getfixturevalue(kind)
    page = Page(sweep_page(sweep))
    wanted = [sweep.unit, sweep.answer.question[1:], times(sweep.answer.gain)]
    for row in sweep.rows:
        wanted += [f"{value:g}" for value in row.values.values()]
        wanted += [row.why] if row.deployment is None else [rate(row.reached), row.deployment.binding]
    for fit in sweep.fits:
        wanted += [
            f"{fit.regime.exponent:.2f}",
            f"{fit.regime.low:.2f}",
            f"{fit.regime.first:g}",
            fit.binding,
        ]
    assert [text for text in wanted if text not in page.text] == []
    assert len(page.of_class("swept")) == sum(row.deployment is not None for row in sweep.rows)
    assert len(page.of_class("guide-x")) == (1 if kind == "sweep" else 0)


def test_a_sweep_of_names_is_bars(sweep):
    names = [replace(row, values={"system": f"system {number}"}) for number, row in enumerate(sweep.rows)]
    answer = replace(sweep.answer, best=names[-1], least=None)
    page = Page(sweep_page(replace(sweep, rows=tuple(names), fits=(), answer=answer)))
    assert page.faults == []
    assert page.of_class("plot") == []
    assert page.text.index("system 8 10,914") < page.text.index("system 7 10,325")


def test_a_sweep_that_reaches_nothing_says_so(sweep):
    rows = tuple(replace(row, deployment=None, reached=None, why="too slow") for row in sweep.rows)
    page = Page(sweep_page(replace(sweep, rows=rows, fits=(), answer=None)))
    assert page.faults == []
    assert "Nothing reaches the level of service" in page.text
    assert page.text.count("too slow") == len(rows)


@pytest.mark.parametrize("objective", Objective)
def test_the_answer_leads_with_what_was_asked_for(plan, system, objective):
    html = plan_page(replace(plan, objective=objective), system)
    (answer,) = re.findall("<h1>(.*?)</h1>", html, re.DOTALL)
    point = plan.best.point
    value = {
        Objective.CHIP: point.tokens_per_s_per_chip.value,
        Objective.MW: point.tokens_per_s_per_mw,
        Objective.USD: 1e6 / point.usd_per_mtok,
    }[objective]
    assert answer.startswith(f"<b>{rate(value)}")
    assert plan.best.binding in answer
    assert len(Page(html).of_class("main")) == 1


def test_a_plan_with_nothing_beside_it_is_drawn(plan, system):
    bare = replace(plan, interactivity=None, ttft_s=None, pareto=(), alternatives=(), seconds=0.0)
    page = Page(plan_page(bare, system))
    assert page.faults == []
    assert "Nothing else came near." in page.text
    assert page.of_class("guide-x") == []
    assert len(page.of_class("mark")) == 1


def test_a_plan_of_one_pool_has_one_step_and_one_kind_of_rank(plan, system):
    page = Page(plan_page(replace(plan, best=plan.alternatives[-1].deployment), system))
    assert "Mixed step" in page.text
    assert "Mixed rank" in page.text
    assert "Prefill step" not in page.text


def test_a_system_that_is_only_announced_is_called_so(plan, system):
    assert "Sample NVL72, as announced" in Page(plan_page(plan, replace(system, announced=True))).text
    assert "as announced" not in Page(plan_page(plan, system)).text


def test_systems_that_are_not_given_are_not_drawn(comparison):
    page = Page(comparison_page(comparison))
    assert page.of_class("domain") == []
    assert page.of_class("capacity") == []
    assert all(name in page.text for name in comparison.points)


def test_the_waterfall_ends_at_the_ratio_that_its_factors_make(comparison):
    title = re.search("Where the .*? comes from", comparison_page(comparison))[0]
    assert title == f"Where the {times(comparison.ratio.per_mw.value)} per MW comes from"
    without_power = replace(comparison, waterfall=comparison.waterfall[:-1])
    assert "per chip comes from" in comparison_page(without_power)
    first = replace(comparison, waterfall=comparison.waterfall[:1])
    assert f"{times(first.waterfall[0].factor)} in all comes from" in comparison_page(first)
    assert math.isclose(
        math.prod(step.factor for step in comparison.waterfall), comparison.ratio.per_mw.value, rel_tol=1e-9
    )
