"""What sets an operator's time, and the words for it."""

import numpy as np
import pytest
from cases import work
from planning import PRIORS

from rackscale.cost import Batch, step
from rackscale.plan.explain import FORMULAS, further, limits, operator_times
from rackscale.plan.types import OperatorTime


def batch(sequences, *, prefill=False, queries=1.0, context=2000.0):
    return Batch(
        sequences=np.array([float(sequences)]),
        queries=np.array([queries]),
        context=np.array([0.0 if prefill else context]),
        prefill=prefill,
    )


def by_name(sequences, factor=1.0, **options):
    return {
        one.name: one
        for one in operator_times(work(), batch(sequences, **options), PRIORS, np.array([factor]))[0]
    }


def test_every_operator_has_a_formula_that_is_there():
    for name in step(work(), batch(1), PRIORS).operators:
        assert name in FORMULAS
    for formula, _ in FORMULAS.values():
        module, _, function = formula.rpartition(".")
        assert pytest.importorskip(module).__dict__[function] if function != "closed_loop" else True


def test_seconds_are_the_steps_times_the_factor():
    whole = step(work(), batch(8), PRIORS).operators
    for name, one in by_name(8, factor=1.5).items():
        assert one.seconds == pytest.approx(1.5 * float(np.ravel(whole[name].seconds)[0]))


def test_few_tokens_stream_and_many_multiply():
    assert by_name(1)["attention projections"].bound == "HBM"
    many = by_name(64, prefill=True, queries=4096.0)
    assert many["attention projections"].bound == "tensor cores"
    assert many["attention"].bound == "tensor cores"
    assert by_name(1)["kernel launches"].bound == "latency"


def operator(name, seconds, bound):
    return OperatorTime(
        name=name, seconds=seconds, flops=0, bytes_hbm=0, bytes_link=0, bound=bound, formula="", source=""
    )


def test_limits_in_words():
    found = limits(
        (
            operator("routed experts", 6.0, "HBM"),
            operator("attention", 2.0, "HBM"),
            operator("head", 1.0, "tensor cores"),
            operator("expert exchange", 3.0, "latency"),
            operator("attention all-reduce", 1.0, "latency"),
            operator("dense all-reduce", 1.0, "link"),
            operator("kernel launches", 1.0, "latency"),
            further("host", 2.0),
        ),
        slowest=1.5,
        prefill=False,
    )
    assert found == pytest.approx(
        {
            "weight streaming in decode": 4.0,
            "slowest expert": 2.0,
            "reading the KV cache": 2.0,
            "tensor cores in decode": 1.0,
            "all-to-all latency": 3.0,
            "all-reduce latency": 1.0,
            "link bandwidth in decode": 1.0,
            "launches and host": 3.0,
        }
    )
    assert limits((operator("head", 1.0, "HBM"),), 1.0, prefill=True) == {"weight streaming in prefill": 1.0}
