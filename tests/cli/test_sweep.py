"""`rackscale sweep` as a user meets it."""

import json
from importlib import import_module

import pytest
from invented import deployment

from rackscale.cli import main
from rackscale.plan.report.figures import times
from rackscale.plan.sweep import Answer, Fit, Row, Sweep
from rackscale.plan.sweep.regimes import Regime

WORDS = ["--model", "kimi-k2-thinking", "--system", "gb200-nvl72", "--isl", "8192", "--osl", "1024"]
DOMAIN = ["--vary", "system.domain=8..32"]


def run(capsys, *words):
    code = main(["sweep", *(str(word) for word in words)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_help_has_an_example(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "Example: rackscale sweep --model kimi-k2-thinking" in " ".join(out.split())


@pytest.fixture
def planned(monkeypatch):
    """What was asked; the answer is invented. Where two things vary, nothing is reached."""
    asked = []

    def sweep(question, vary, *, on_row):
        asked.append((question, [(axis.path, values) for axis, values in vary]))
        (axis, values), *others = vary
        at = {other.path: found[0] for other, found in others}
        rows = [
            Row(values={axis.path: value} | at, deployment=deployment(), reached=1000.0 * (number + 1))
            for number, value in enumerate(values[:-1])
        ]
        rows.append(Row(values={axis.path: values[-1]} | at, deployment=None, reached=None, why="too slow"))
        for row in rows:
            on_row(row)
        regime = Regime(first=8, last=16, exponent=1.0, low=0.9, high=1.1)
        fit = Fit(over=axis.path, at=at, binding="HBM for KV", regime=regime)
        best = rows[-2]
        return Sweep(
            model=question.model.name,
            system=question.system.name,
            isl=question.isl,
            osl=question.osl,
            interactivity=question.interactivity,
            unit="tokens/s per chip",
            rows=tuple(rows),
            fits=() if axis.names else (fit,),
            answer=None
            if others
            else Answer(question="which rack suits this model", best=best, gain=1.25, least=rows[0]),
        )

    monkeypatch.setattr(import_module("rackscale.plan.sweep"), "sweep", sweep)
    return asked


def test_the_answer_comes_first(capsys, planned):
    code, out, err = run(capsys, *WORDS, *DOMAIN, "--interactivity", 50)
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if line.strip()]
    assert "50 tokens/s per user" in lines[0]
    assert lines[1].startswith("Which rack suits this model: system.domain 16, 2,000 tokens/s per chip")
    assert f"{times(1.25)} of what it is now; system.domain 8 is within 5 % of that." in lines[1]
    assert "+1.00" in out
    assert "+0.90 to +1.10" in out
    assert "HBM for KV" in out
    assert "too slow" in out
    ((question, vary),) = planned
    assert vary == [("system.domain", (8, 16, 32))]
    assert (question.role, question.objective, question.interactivity) == ("auto", "chip", 50)


def test_json(capsys, planned):
    code, out, err = run(capsys, *WORDS, *DOMAIN, "--json", "--objective", "mw", "--role", "mixed")
    assert (code, err) == (0, "")
    found = json.loads(out)
    first, *_, last = found["rows"]
    assert first["system.domain"] == 8
    assert first["point"]["tokens_per_s_per_chip"] > 0
    assert last == {"system.domain": 32, "point": None, "reached": None, "why": "too slow"}
    assert found["fits"] == [
        {
            "over": "system.domain",
            "at": {},
            "regime": "8 to 16",
            "first": 8,
            "last": 16,
            "exponent": 1.0,
            "interval90": [0.9, 1.1],
            "binding": "HBM for KV",
        }
    ]
    assert found["answer"]["best"] == {"system.domain": 16}
    assert found["answer"]["least_nearly_as_good"] == {"system.domain": 8}
    ((question, _),) = planned
    assert (question.objective, question.role) == ("mw", "mixed")


def test_two_paths_and_no_answer(capsys, planned):
    code, out, _ = run(capsys, *WORDS, *DOMAIN, "--vary", "model.experts=64,128")
    assert code == 0
    assert "No value reaches the level of service." in out
    assert "model.experts 64" in out


def test_names(capsys, planned):
    code, out, _ = run(capsys, *WORDS, "--vary", "system=hgx-h200,hgx-b200")
    assert code == 0
    assert "Which rack suits this model: system hgx-h200" in out
    assert "exponent" not in out


def test_a_page(capsys, planned, tmp_path):
    page = tmp_path / "r.html"
    assert run(capsys, *WORDS, *DOMAIN, "--report", page)[0] == 0
    assert "system.domain" in page.read_text()
    code, _, err = run(capsys, *WORDS, *DOMAIN, "--report", tmp_path / "no" / "r.html")
    assert code == 2
    assert "cannot be written" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*WORDS, "--vary", "system.domian=8..16"], "give system.domain"),
        ([*WORDS, "--vary", "system.domain=16..8"], "does not rise"),
        ([*WORDS, "--vary", "system.hbm_bytes=1furlong"], "no number above 0"),
        ([*WORDS], "Missing parameter: vary"),
        ([*WORDS, *DOMAIN, *DOMAIN], "vary one, or two different ones"),
        ([*WORDS, "--vary", "system=hgx-h200,hgx-b20"], "give hgx-b200"),
        ([*WORDS, *DOMAIN, "--system", "gb200-nv"], "give gb200-nvl72"),
        ([*WORDS, *DOMAIN, "--role", "both"], "role both"),
        ([*WORDS, *DOMAIN, "--chips", "0"], "chips is 0"),
        ([*WORDS, *DOMAIN, "--interactivity", "36", "--tpot-ms", "20"], "give one or the other"),
        ([*WORDS, "--vary", "isl=1e6"], "beyond the context"),
    ],
)
def test_bad_input_is_one_line(capsys, words, said):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
