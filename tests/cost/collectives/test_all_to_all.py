"""Exchanges of experts' tokens: what must hold for any size, and what was published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.cost import Chips
from rackscale.cost.collectives import BEST, Exchange, Links, all_to_all, fitted, phases, protocol_of
from rackscale.cost.collectives.priors import PRIORS
from rackscale.cost.collectives.protocols import FAMILIES, KERNELS
from rackscale.specs.catalog import load_system

HOPPER, BLACKWELL, UNKNOWN = 0, 1, -1
WIDTHS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 72, 144, 288, 576)


def links(generation=BLACKWELL, domain=72.0, fabric=900e9, network=50e9):
    return Links(generation=generation, domain=domain, fabric_bytes_per_s=fabric, network_bytes_per_s=network)


def exchange(ranks=32.0, tokens=128.0, **changes):
    return Exchange(**{"ranks": ranks, "tokens_per_rank": tokens, "hidden": 7168.0, "top_k": 8.0, **changes})


everywhere = st.sampled_from([*KERNELS, *FAMILIES])
generations = st.sampled_from([HOPPER, BLACKWELL, UNKNOWN])
widths = st.integers(1, 576)
token_counts = st.floats(0, 20_000)


@given(everywhere, generations, token_counts)
def test_one_rank_has_nobody_to_tell(protocol, generation, tokens):
    found = phases(exchange(1.0, tokens), links(generation), protocol).total
    assert found.seconds == 0
    assert found.bytes_link == 0


@given(everywhere, generations, widths, token_counts, st.floats(1, 3))
def test_more_tokens_wider_rows_and_skew_take_longer(protocol, generation, ranks, tokens, factor):
    def seconds(**changes):
        one = exchange(float(ranks), **{"tokens": tokens, **changes})
        return phases(one, links(generation, 576.0), protocol).total.seconds

    base = seconds()
    assert seconds(tokens=tokens * factor) >= base
    assert seconds(skew=factor) >= base
    assert seconds(hidden=7168 * factor) >= base
    assert seconds(top_k=9.0) >= base


@given(everywhere, generations, token_counts, st.floats(1, 20))
def test_faster_links_take_no_longer(protocol, generation, tokens, factor):
    slow = phases(exchange(tokens=tokens), links(generation), protocol).total.seconds
    fast = phases(
        exchange(tokens=tokens), links(generation, fabric=900e9 * factor, network=50e9 * factor), protocol
    ).total.seconds
    assert fast <= slow


@given(everywhere, generations, token_counts, st.booleans())
def test_more_ranks_take_no_less_time(protocol, generation, tokens, balanced):
    every = exchange(np.array(WIDTHS, dtype=float), tokens, balanced=balanced)
    seconds = phases(every, links(generation), protocol).total.seconds
    finite = seconds[np.isfinite(seconds)]
    assert (np.diff(finite) >= -1e-12).all()


@given(everywhere, generations, st.sampled_from(WIDTHS), token_counts)
def test_more_domains_are_never_faster(protocol, generation, ranks, tokens):
    sizes = np.array([576.0, 144.0, 72.0, 36.0, 18.0, 8.0, 4.0])
    seconds = phases(exchange(float(ranks), tokens), links(generation, sizes), protocol).total.seconds
    assert (seconds[1:] >= seconds[:-1] - 1e-12).all()


@given(st.lists(st.tuples(widths, token_counts, st.floats(1, 2)), min_size=1, max_size=5), generations)
def test_arrays_are_their_entries(rows, generation):
    ranks, tokens, skew = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    together = all_to_all(exchange(ranks, tokens, skew=skew), links(generation, 8.0))
    alone = [
        all_to_all(exchange(*row[:2], skew=row[2]), links(generation, 8.0)).seconds
        for row in zip(ranks, tokens, skew, strict=True)
    ]
    np.testing.assert_allclose(together.seconds, np.ravel(alone))
    assert together.bytes_link.shape == ranks.shape


def test_rows_of_several_generations():
    chips = Chips.of([load_system(name) for name in ("hgx-h200", "gb200-nvl72", "mi355x", "vr200-nvl72")])
    found = all_to_all(exchange(8.0), Links.of(chips)).seconds
    assert np.isfinite(found).all()
    assert found[0] > found[1] > found[3]


@given(generations, widths, token_counts)
def test_the_best_is_one_of_those_offered(generation, ranks, tokens):
    every = [phases(exchange(float(ranks), tokens), links(generation), name).total.seconds for name in BEST]
    best = all_to_all(exchange(float(ranks), tokens), links(generation)).seconds
    assert best in every
    assert best <= min(every[:2])  # DeepEP's run everywhere


def test_kernels_over_memory_stay_in_a_domain():
    assert np.isinf(phases(exchange(144.0), links(), "NVLinkOneSided").total.seconds)
    assert np.isfinite(phases(exchange(144.0), links(), "normal").total.seconds)


def test_a_box_of_unmeasured_chips_is_not_taken_to_map_memory():
    many = exchange(8.0, 4096.0)
    ours = all_to_all(many, links(UNKNOWN, 8.0)).seconds
    rack = all_to_all(many, links(UNKNOWN, 72.0)).seconds
    assert rack < ours
    assert ours == min(phases(many, links(UNKNOWN, 8.0), name).total.seconds for name in BEST[:2])


def test_one_protocol_by_name():
    one = all_to_all(exchange(), links(), "NVLinkTwoSided")
    steps = phases(exchange(), links(), protocol_of("NVLinkTwoSided"))
    assert one.seconds == steps.prepare.seconds + steps.dispatch.seconds + steps.combine.seconds
    assert steps.prepare.bytes_link == 0


def test_a_graph_lifts_the_floor_that_the_host_sets():
    few = exchange(8.0, 1.0)
    assert (
        phases(few, links(), "trtllm_deepep_ll", captured=True).total.seconds
        < phases(few, links(), "trtllm_deepep_ll").total.seconds
    )


def test_combine_of_throughput_kernels_is_bf16():
    usual = phases(exchange(), links(), "normal").combine
    narrow = phases(exchange(combine="nvfp4"), links(), "normal").combine
    assert usual.bytes_link == narrow.bytes_link
    one_sided = phases(exchange(combine="nvfp4"), links(), "NVLinkOneSided").combine
    assert one_sided.bytes_link < usual.bytes_link


def test_a_token_crosses_the_network_once_for_each_domain():
    """400 Gb/s, boxes of 8, 32 ranks: `normal` sends to 2.7 other boxes, `low_latency` 6 times."""
    hopper = links(HOPPER, 8.0, 450e9, 50e9)
    many = exchange(32.0, 100_000.0, dispatch="fp8")
    normal = phases(many, hopper, "normal").dispatch.seconds
    ll = phases(many, hopper, "low_latency").dispatch.seconds
    assert ll / normal == pytest.approx(6 / 2.7, rel=0.05)


@pytest.mark.parametrize(
    ("tokens", "published_us"),
    [(128, 26 + 48), (2, 21 + 33)],  # one-sided, NVFP4 dispatch, 32 ranks: facts of the kernel tables
)
def test_published_on_a_rack(tokens, published_us):
    one = exchange(32.0, float(tokens), dispatch="nvfp4", balanced=True)
    assert phases(one, links(), "NVLinkOneSided").total.seconds == pytest.approx(
        published_us * 1e-6, rel=0.15
    )


def test_published_over_infiniband():
    """DeepEP's low latency on H200 at 32 ranks and 128 tokens: 143 + 263 us."""
    one = phases(exchange(), links(HOPPER, 8.0, 450e9, 50e9), "low_latency")
    assert one.dispatch.seconds == pytest.approx(143e-6, rel=0.15)
    assert one.combine.seconds == pytest.approx(263e-6, rel=0.15)


def test_unknown_protocol_and_format():
    with pytest.raises(SpecError, match="use normal"):
        all_to_all(exchange(), links(), "nromal")
    with pytest.raises(SpecError, match="unknown wire format 'fp9': use fp8"):
        all_to_all(exchange(dispatch="fp9"), links())


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("NVLinkOneSided", "one_sided"),
        ("ht", "ht"),
        ("ElasticBuffer V2", "ht"),
        ("mori_ll", "ll"),
        ("nvlinkTwoSided", "two_sided"),
    ],
)
def test_a_new_kernel_is_its_familys_mean(name, family):
    found = protocol_of(name)
    assert found.family == family
    assert found.kernel == (name if name in KERNELS else "")


def test_what_was_never_measured_is_less_sure():
    values = fitted()
    widths_of = values.interval_half_width(protocol_of("low_latency"), np.array([HOPPER, UNKNOWN]))
    assert widths_of[1] > widths_of[0] > 0
    new = values.interval_half_width(protocol_of("ll"), np.array([HOPPER, UNKNOWN]))
    assert (new > widths_of[0]).all()


def test_fitted_values_are_near_what_is_physical():
    values = fitted()
    for base, prior in PRIORS.items():
        assert abs(values.logs[base] - np.log(prior.value)) < 3 * prior.spread, base
    for kernel, family in KERNELS.items():
        for generation in (HOPPER, BLACKWELL, UNKNOWN):
            for phase in FAMILIES[family].phases:
                terms = values.terms(protocol_of(kernel), phase, "bf16", generation)
                assert terms.link_share <= 1.0
                assert terms.network_share <= 1.0
