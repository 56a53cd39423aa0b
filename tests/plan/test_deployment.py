"""What `plan` writes is read back, and runs here at reduced size."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.plan.deployment import find_planned, format_planned, read_planned, reduced, write_deployment
from rackscale.plan.types import Band, PlannedDeployment, PlanPoint, PoolPlan
from rackscale.specs import Role, parse_deployment, read_deployment

POSITIVE = st.floats(1e-6, 1e12)
TEXT = st.text(min_size=1).filter(str.strip)


@st.composite
def pools(draw, role):
    tp, ep = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 8, 24]))
    ranks = math.lcm(tp, ep) * draw(st.integers(1, 4))
    return PoolPlan(
        role=role,
        groups=draw(st.integers(1, 40)),
        ranks=ranks,
        tp=tp,
        ep=ep,
        redundant_experts=draw(st.integers(0, 64)),
        batch_per_rank=0.0 if role is Role.PREFILL else draw(POSITIVE),
        batch_tokens=0 if role is Role.DECODE else draw(st.integers(1, 65536)),
        micro_batches=draw(st.sampled_from([1, 2])),
    )


@st.composite
def plans(draw):
    roles = draw(st.sampled_from([(Role.MIXED,), (Role.PREFILL, Role.DECODE)]))
    found = tuple(draw(pools(role)) for role in roles)
    band = st.builds(Band, value=POSITIVE, low=POSITIVE, high=POSITIVE)
    point = PlanPoint(
        tokens_per_s_per_chip=draw(band),
        output_tokens_per_s_per_chip=draw(POSITIVE),
        tpot_s=draw(band),
        ttft_s=draw(band),
        ttft_p99_s=draw(POSITIVE),
        tpot_p99_s=draw(POSITIVE),
        tokens_per_s_per_mw=draw(POSITIVE),
        usd_per_mtok=draw(POSITIVE),
        chips=sum(pool.chips for pool in found),
        concurrency=draw(POSITIVE),
    )
    return PlannedDeployment(
        model=draw(TEXT),
        system=draw(TEXT),
        isl=draw(st.integers(1, 1 << 20)),
        osl=draw(st.integers(1, 1 << 20)),
        weights="nvfp4",
        pools=found,
        point=point,
        binding=draw(TEXT),
        operators={},
        memory={},
    )


PLAN = PlannedDeployment(
    model="kimi-k2-thinking",
    system="gb200-nvl72",
    isl=8192,
    osl=1024,
    weights="nvfp4",
    pools=(
        PoolPlan(role=Role.PREFILL, groups=8, ranks=8, tp=1, ep=8, batch_tokens=16384),
        PoolPlan(
            role=Role.DECODE, groups=1, ranks=32, tp=8, ep=32, redundant_experts=32, batch_per_rank=20.4
        ),
    ),
    point=PlanPoint(
        tokens_per_s_per_chip=Band(value=4e3, low=3e3, high=5e3),
        output_tokens_per_s_per_chip=440.0,
        tpot_s=Band(value=0.025, low=0.02, high=0.03),
        ttft_s=Band(value=1.5, low=1.0, high=2.0),
        ttft_p99_s=3.0,
        tpot_p99_s=0.03,
        tokens_per_s_per_mw=1e6,
        usd_per_mtok=0.2,
        chips=96,
        concurrency=2048.0,
    ),
    binding="HBM for KV",
    operators={},
    memory={},
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("plan") / "deployment.toml"


@given(plan=plans())
def test_what_is_written_is_read(path, plan):
    path.write_text(format_planned(plan), encoding="utf-8")
    assert read_planned(path) == plan
    file = read_deployment(path)
    assert [group.role for group in file.groups] == [pool.role for pool in plan.pools]
    assert file.num_ranks <= max(4, len(plan.pools))


def test_reduced_size_keeps_roles_and_ratios():
    prefill, decode = reduced(PLAN, stand_in="m", ranks=3).groups
    assert (prefill.role, prefill.count, prefill.num_ranks, prefill.tp) == (Role.PREFILL, 1, 2, 1)
    assert (decode.role, decode.count, decode.num_ranks, decode.tp) == (Role.DECODE, 1, 1, 1)
    assert (prefill.redundant_experts, decode.redundant_experts) == (0, 1)
    assert decode.max_running == 20
    prefill, decode = reduced(PLAN, stand_in="m", ranks=12).groups
    assert (prefill.num_ranks, decode.num_ranks, decode.tp) == (8, 4, 4)
    assert reduced(PLAN, stand_in="m", ranks=1000).num_ranks == 96
    with pytest.raises(SpecError, match="1 ranks for 2 pools"):
        reduced(PLAN, stand_in="m", ranks=1)


def test_figures_that_are_not_known_are_left_out(path):
    unknown = replace(PLAN.point, usd_per_mtok=math.nan, ttft_p99_s=math.inf)
    write_deployment(replace(PLAN, point=unknown), path)
    assert "usd_per_mtok" not in path.read_text()
    point = read_planned(path).point
    assert math.isnan(point.usd_per_mtok)
    assert math.isnan(point.ttft_p99_s)
    assert point.tpot_s == PLAN.point.tpot_s


def test_a_file_without_a_plan(path):
    path.write_text('[deployment]\nmodel = "m"\n[[group]]\n')
    assert find_planned(path) is None
    with pytest.raises(SpecError, match=r"has no \[plan\]: give a file that `rackscale plan --out` wrote"):
        read_planned(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("ranks = 32", "ranks = 33", "tp = 8 and ep = 32: both must divide ranks"),
        ("groups = 8", "groups = 0", "a whole number, at least 1"),
        ('role = "decode"\ngroups', 'role = "drafting"\ngroups', "'drafting'"),
        ("isl = 8192", "", "[plan] has no isl"),
        ("isl = 8192", "isl = 8192\nisll = 1", "unknown 'isll'"),
        ("[plan.point]", "[plan.pointer]", "has no point"),
        ("chips = 96", "chips = 96\nspeed = 1", "unknown 'speed'"),
        ("[[plan.pool]]", "[[plan.pond]]", "no [[plan.pool]]"),
        ("batch_tokens = 16384", "batch_tokens = 16384\nbatch = 1", "unknown 'batch'"),
        ("num_ranks = 3", "num_ranks = 0", "num_ranks = 0"),
    ],
)
def test_wrong_fields_are_named(path, old, new, says):
    text = format_planned(PLAN)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SpecError) as error:
        read_planned(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_pools_must_be_tables(path):
    text = format_planned(PLAN)
    path.write_text(text[: text.index("[[plan.pool]]")] + "pool = [1]\n")
    with pytest.raises(SpecError, match=r"pool in .* is no table"):
        read_planned(path)


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        read_planned(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="cannot be written"):
        write_deployment(PLAN, tmp_path / "no" / "where.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(SpecError, match="no UTF-8"):
        read_planned(tmp_path / "bytes.toml")
    with pytest.raises(SpecError, match="a plan that is no table"):
        parse_deployment('plan = 1\n[deployment]\nmodel = "m"\n[[group]]\n', source="d.toml")
