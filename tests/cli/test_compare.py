"""`rackscale compare` as a user meets it."""

import json
import math
from dataclasses import replace
from importlib import import_module

import pytest
from invented import deployment

from rackscale.cli import main
from rackscale.plan.report.figures import times
from rackscale.plan.types import Band, Comparison, CurvePoint, Ratio, WaterfallStep

WORDS = ["--model", "kimi-k2-thinking", "--isl", "8192", "--osl", "1024", "--interactivity", "36.3"]
PAIR = ["--systems", "hgx-h200,gb200-nvl72"]


def run(capsys, *words):
    code = main(["compare", *(str(word) for word in words)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_help_has_an_example(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "Example: rackscale compare --model kimi-k2-thinking" in " ".join(out.split())


def band(value):
    return Band(value=value, low=0.8 * value, high=1.2 * value)


@pytest.fixture
def planned(monkeypatch):
    """What was asked; the answer is invented."""
    asked = []

    def compare_with(question, systems, baselines):
        asked.append((question, [system.name for system in systems], baselines))
        steps = [("weights", 3.0, 3.0), ("domain", 4.0, 12.0), ("power, IT", 0.75, 9.0)]
        comparison = Comparison(
            model=question.model.name,
            isl=question.isl,
            osl=question.osl,
            interactivity=question.interactivity,
            baseline="a box",
            power=question.power,
            price=question.price,
            points={system.name: deployment(system.name) for system in systems},
            ratio=Ratio(per_chip=band(12.0), per_mw=band(9.0), per_usd=band(8.0)),
            waterfall=tuple(
                WaterfallStep(
                    step=name, factor=factor, cumulative=so_far, low=factor * 0.9, high=factor * 1.1
                )
                for name, factor, so_far in steps
            ),
            curve=(
                CurvePoint(interactivity=20.0, per_chip=8.0, per_mw=6.0, per_usd=5.0),
                CurvePoint(interactivity=36.3, per_chip=12.0, per_mw=9.0, per_usd=8.0),
            ),
        )
        return {name: replace(comparison, baseline=f"a {name}") for name in baselines}

    monkeypatch.setattr(import_module("rackscale.plan.compare"), "compare_with", compare_with)
    return asked


def test_the_answer_comes_first(capsys, planned):
    code, out, err = run(capsys, *WORDS, *PAIR)
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if line.strip()]
    assert "36.3 tokens/s per user" in lines[0]
    answer = " ".join(lines[1:3]).replace("\xa0", " ")
    assert f"GB200 NVL72 gives {times(12)} per chip [9.60 to 14.4], {times(9)} per MW (IT power)" in answer
    assert "over a box" in answer
    assert out.count("where the ratio per MW comes from") == 2
    assert "over a disaggregated" in " ".join(out.split())
    ((question, systems, baselines),) = planned
    assert (question.isl, question.osl, question.interactivity) == (8192, 1024, 36.3)
    assert (question.power, question.price, question.objective) == ("it", "hyperscaler", "mw")
    assert systems == ["hgx-h200", "gb200-nvl72"]
    assert baselines == ("box", "disaggregated")


def test_json(capsys, planned):
    code, out, err = run(capsys, *WORDS, *PAIR, "--json", "--baseline", "disaggregated")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert set(found["points"]) == {"hgx-h200", "gb200-nvl72"}
    assert found["points"]["hgx-h200"]["tokens_per_s_per_chip"] > 0
    assert found["ratio"]["per_mw"] == 9
    assert found["ratio"]["interval90"]["per_chip"] == pytest.approx([9.6, 14.4])
    assert math.prod(step["factor"] for step in found["waterfall"]) == pytest.approx(found["ratio"]["per_mw"])
    assert found["waterfall"][0] == {
        "step": "weights",
        "factor": 3.0,
        "cumulative": 3.0,
        "interval90": pytest.approx([2.7, 3.3]),
    }
    assert found["curve"][1]["interactivity"] == 36.3
    assert list(found["baselines"]) == ["disaggregated"]


def test_options_reach_the_question(capsys, planned):
    words = ["--model", "kimi-k2-thinking", "--isl", 100, "--osl", 10, "--tpot-ms", 20, "--ttft-s", 2]
    words += [
        "--objective",
        "usd",
        "--power",
        "utility",
        "--price",
        "rental",
        "--chips",
        64,
        "--weights",
        "int4",
    ]
    words += ["--engine", "sglang", "--mean-length", 0.9, "--speculative", "--json", *PAIR]
    assert run(capsys, *words)[0] == 0
    ((question, _, _),) = planned
    assert question.interactivity == pytest.approx(50)
    assert (question.ttft_s, question.chips, question.weights) == (2, 64, "int4")
    assert (question.objective, question.power, question.price) == ("usd", "utility", "rental")
    assert (question.engine, question.mean_length, question.speculative) == ("sglang", 0.9, True)


def test_a_page_for_each_baseline(capsys, planned, tmp_path):
    page = tmp_path / "r.html"
    assert run(capsys, *WORDS, *PAIR, "--report", page)[0] == 0
    assert "a box" in page.read_text()
    assert "a disaggregated" in (tmp_path / "r-disaggregated.html").read_text()


def test_a_page_that_cannot_be_written(capsys, planned, tmp_path):
    code, _, err = run(capsys, *WORDS, *PAIR, "--report", tmp_path / "no" / "r.html")
    assert code == 2
    assert "cannot be written" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*WORDS, "--systems", "hgx-h200,gb200-nvl27"], "give gb200-nvl72"),
        ([*WORDS, "--systems", "hgx-h200"], "one system cannot be compared"),
        ([*WORDS, "--systems", ","], "--systems names none"),
        ([*WORDS, "--systems", "hgx-h200,hgx-h200"], "twice"),
        ([*WORDS, *PAIR, "--model", "kimi-k3"], "give kimi-k2"),
        ([*WORDS, *PAIR, "--power", "wind"], "power wind"),
        ([*WORDS, *PAIR, "--price", "free"], "price free"),
        ([*WORDS, *PAIR, "--objective", "joy"], "--objective joy"),
        ([*WORDS, *PAIR, "--tpot-ms", "20"], "give one or the other"),
        ([*WORDS, *PAIR, "--interactivity", "nan"], "interactivity is nan"),
        ([*WORDS, *PAIR, "--baseline", "none"], "'none'"),
        ([*WORDS[:-2], *PAIR], "give an interactivity"),
    ],
)
def test_bad_input_is_one_line(capsys, words, said):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_a_speed_that_one_side_cannot_give(capsys):
    words = ["--model", "olmoe-1b-7b", "--isl", 256, "--osl", 64, "--interactivity", 1e5]
    code, out, err = run(capsys, *words, "--systems", "hgx-h200,hgx-b200")
    assert (code, out) == (2, "")
    assert "hgx-b200" in err
    assert "its fastest is" in err
    assert err.count("\n") == 1
