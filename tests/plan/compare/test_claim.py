"""The published claim, by the committed fit."""

from dataclasses import replace
from importlib import import_module

import pytest

from rackscale.plan.compare import compare
from rackscale.plan.question import Question
from rackscale.specs.catalog import load_model, load_system


def test_the_published_tenfold_is_of_a_box_in_the_middle_of_the_curve(monkeypatch):
    """Kimi K2, 8K/1K, 36.3 tokens/s per user: InferenceX's curves have 13.8 times per chip, 10.1 times per MW
    of IT power and 11.4 of utility power (docs/scaling-laws.md). Nothing is fitted to that."""
    kimi = Question(
        model=load_model("kimi-k2-thinking"),
        system=load_system("gb200-nvl72"),
        isl=8192,
        osl=1024,
        interactivity=36.3,
        mean_length=0.9,
        power="it",
    )
    systems = [load_system("hgx-h200"), kimi.system]
    monkeypatch.setattr(import_module("rackscale.plan.compare.comparison"), "waterfall", lambda *_: ())
    for power, per_mw in (("it", 10.1), ("utility", 11.4)):
        ratio = compare(replace(kimi, power=power), systems).ratio
        assert ratio.per_chip.value == pytest.approx(13.8, rel=0.15)
        assert ratio.per_mw.value == pytest.approx(per_mw, rel=0.15)
