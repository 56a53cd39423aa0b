"""Deployment files: what is read is what was written, and every mistake is named where it is."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackscale.core import SpecError
from rackscale.specs import (
    DeploymentFile,
    GqaSpec,
    GroupEntry,
    LayerSpec,
    ModelSpec,
    MoeSpec,
    Role,
    RopeSpec,
    RouterSpec,
    Scoring,
    format_deployment,
    layout_of,
    parse_deployment,
    read_deployment,
    write_deployment,
)
from rackscale.specs.sizing import PoolLayout, lay_out

# A token takes 1 layer * 2 * 1 head * 1024 = 2048 elements, 8 KiB in fp32; a block of 16, 128 KiB.
MODEL = ModelSpec(
    family="test",
    vocab_size=100,
    hidden=64,
    attention=GqaSpec(num_heads=2, num_kv_heads=2, head_dim=512),
    rope=RopeSpec(theta=1e4, dim=8),
    layers=(LayerSpec(moe=False),),
    dense_width=128,
    moe=None,
    norm_eps=1e-6,
    max_positions=1024,
    tied_embeddings=True,
)
MOE = MoeSpec(router=RouterSpec(num_experts=64, top_k=6, scoring=Scoring.SIGMOID), width=32)
HEAD = '[deployment]\nmodel = "folder/m"\n'


def parse(text):
    return parse_deployment(text, source="d.toml")


@st.composite
def entries(draw):
    tp = draw(st.integers(1, 4))
    max_running = draw(st.integers(1, 1000))
    kv = draw(st.sampled_from([{}, {"kv_gib": draw(st.floats(1e-6, 1e6))}, {"num_blocks": 7}]))
    return GroupEntry(
        role=Role.MIXED,
        count=draw(st.integers(1, 5)),
        num_ranks=tp * draw(st.integers(1, 20)),
        tp=tp,
        max_running=max_running,
        max_batched_tokens=max_running + draw(st.integers(0, 1000)),
        redundant_experts=draw(st.integers(0, 300)),
        **kv,
    )


files = st.builds(
    DeploymentFile,
    model=st.text(min_size=1),
    block_size=st.integers(1, 256),
    max_model_len=st.none() | st.integers(1, 1 << 20),
    max_waiting=st.integers(1, 1 << 20),
    groups=st.lists(entries(), min_size=1, max_size=4).map(tuple),
)


@given(file=files)
def test_what_is_written_is_read_back(file):
    text = format_deployment(file)
    assert parse(text) == file
    assert format_deployment(parse(text)) == text


@given(text=st.text() | st.text(alphabet="[]\"'=\n.{},0123456789eversiongpdlmt "))
def test_any_text_is_read_or_refused(text):
    with suppress(SpecError):
        parse(text)


def test_files(tmp_path):
    path = tmp_path / "d.toml"
    file = DeploymentFile(model="ünïcode", groups=(GroupEntry(role=Role.MIXED, num_ranks=2),))
    write_deployment(file, path)
    assert read_deployment(path) == file


@pytest.mark.parametrize(
    ("groups", "pools"),
    [
        ("[[group]]", (PoolLayout(),)),
        ("[[group]]\nnum_ranks = 4\ntp = 2", (PoolLayout(num_ranks=4, tp=2),)),
        (
            "[[group]]\nrole = 'prefill'\ncount = 2\n[[group]]\nrole = 'decode'\nnum_ranks = 3",
            (PoolLayout(role=Role.PREFILL),) * 2 + (PoolLayout(role=Role.DECODE, num_ranks=3),),
        ),
        ("[[group]]\nnum_ranks = 3\nredundant_experts = 4", (PoolLayout(num_ranks=3, redundant_experts=4),)),
    ],
)
@pytest.mark.parametrize("num_experts", [0, 64])
def test_what_is_left_out_is_as_serve_has_it(groups, pools, num_experts):
    model = MODEL if not num_experts else replace(MODEL, moe=MOE, layers=(LayerSpec(moe=True),) * 3)
    if num_experts or not pools[0].redundant_experts:
        assert layout_of(parse(HEAD + groups), model) == lay_out(model, name="m", layout=pools)


def test_a_model_with_experts():
    layers = (LayerSpec(moe=False), LayerSpec(moe=True), LayerSpec(moe=True))
    text = f"{HEAD}[[group]]\nnum_ranks = 12\nredundant_experts = 1"
    layout = layout_of(parse(text), replace(MODEL, moe=MOE, layers=layers))
    assert (layout.num_moe_layers, layout.num_experts) == (2, 64)
    assert layout.groups[0].redundant_experts == 8  # 72 slots, 6 a rank
    assert layout_of(parse(text), MODEL).groups[0].redundant_experts == 0


def test_pools():
    text = f"""{HEAD}
        [[group]]
        role = "prefill"
        num_ranks = 2
        count = 2
        num_blocks = 100
        [[group]]
        role = "decode"
        num_ranks = 4
        tp = 2
        kv_gib = 1
    """
    file = parse(text)
    assert (file.num_ranks, file.num_seats) == (8, 6)
    deployment = layout_of(file, MODEL, name="served", bytes_per_element=2)
    assert deployment.model == "served"
    prefill, twin, decode = deployment.groups
    assert prefill == twin
    assert (prefill.role, prefill.num_ranks, prefill.num_blocks) == (Role.PREFILL, 2, 100)
    assert (decode.role, decode.num_ranks, decode.num_blocks) == (Role.DECODE, 4, 2 * 8192)
    assert decode.tp == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = ", "d.toml is no TOML"),
        ("[" * 100_000, "d.toml is no TOML"),
        (f"x = {'9' * 10_000}", "d.toml is no TOML"),
        ("version = 2", "version = 2: this release reads 1"),
        ("version = true", "version = True: this release reads 1"),
        ("", "no [deployment] with a model"),
        ("deployment = 1", "no [deployment] with a model"),
        ("[deployment]\nblock_size = 16", "no [deployment] with a model"),
        (HEAD, "no [[group]]"),
        (f"group = []\n{HEAD}", "no [[group]]"),
        (f"group = [1]\n{HEAD}", "[[group]] 1 is no table"),
        (f"groups = []\n{HEAD}", "d.toml has an unknown key 'groups': did you mean group?"),
        (
            f"{HEAD}maxmodellen = 2",
            "[deployment] has an unknown key 'maxmodellen': did you mean max_model_len",
        ),
        (f"{HEAD}[[group]]\n[[group]]\nnumranks = 2", "[[group]] 2 has an unknown key 'numranks'"),
        (f"{HEAD}[[group]]\nnumranks = 2", "did you mean num_ranks?"),
        (f"{HEAD}[[group]]\nzzz = 2", "known are role, count, num_ranks"),
        (f"{HEAD}[[group]]\nnum_ranks = 0", "num_ranks = 0: give a whole number, at least 1"),
        (f"{HEAD}[[group]]\nnum_ranks = 2.0", "num_ranks = 2.0: give a whole number"),
        (f"{HEAD}[[group]]\nnum_ranks = true", "num_ranks = true: give a whole number"),
        (
            f"{HEAD}[[group]]\nredundant_experts = -1",
            "redundant_experts = -1: give a whole number, at least 0",
        ),
        (f"{HEAD}[[group]]\nrole = 'prefil'", 'role = "prefil": give one of mixed, prefill, decode'),
        (f"{HEAD}[[group]]\nrole = 2020-01-01", 'role = "2020-01-01": give one of'),
        (f"{HEAD}[[group]]\nkv_gib = 0", "kv_gib = 0: give a number above 0"),
        (f"{HEAD}[[group]]\nkv_gib = nan", "kv_gib = NaN: give a number above 0"),
        (f"{HEAD}[[group]]\nkv_gib = true", "kv_gib = true: give a number above 0"),
        (f"{HEAD}[[group]]\nkv_gib = 'a'", 'kv_gib = "a": give a number above 0'),
        (f"{HEAD}[[group]]\nkv_gib = 1\nnum_blocks = 1", "kv_gib and num_blocks: give one of them"),
        (f"{HEAD}[[group]]\nnum_ranks = 3\ntp = 2", "tp must divide num_ranks"),
        (f"{HEAD}[[group]]\nmax_running = 513", "a step must hold a token of every sequence"),
        (f"{HEAD}[[group]]\nrole = 'prefill'", 'prefill groups alone: add a [[group]] with role = "decode"'),
        (f"{HEAD}[[group]]\nrole = 'decode'", 'decode groups alone: add a [[group]] with role = "prefill"'),
        (f"{HEAD}[[group]]\ncount = 70000", "70000 ranks: give at most 65536"),
        ("[deployment]\nmodel = ''\n[[group]]", 'model = "": give a text'),
    ],
)
def test_mistakes(text, says):
    with pytest.raises(SpecError) as error:
        parse(text)
    assert error.value.what.startswith("d.toml")
    assert says in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), (b"\xff", "is no UTF-8"), (b"", "no [deployment]")]
)
def test_files_that_cannot_be(tmp_path, content, says):
    path = tmp_path / "d.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as error:
        read_deployment(path)
    assert str(path) in error.value.what
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("max_model_len = 1025\n[[group]]", "beyond the model's 1024 positions: give at most 1024"),
        ("[[group]]\nnum_blocks = 63", "63 KV blocks do not hold one sequence of 1024 tokens"),
        ("[[group]]\nkv_gib = 0.001", "give num_blocks = 64 or kv_gib = 0.008, or more"),
    ],
)
def test_layouts_that_cannot_be(keys, says):
    with pytest.raises(SpecError) as error:
        layout_of(parse(HEAD + keys), MODEL)
    assert says in str(error.value)


def test_a_plan_is_let_by():
    text = HEAD + '[[group]]\n[plan]\nmodel = "another"\n[[plan.pool]]\nranks = 72\n'
    assert parse(text) == parse(HEAD + "[[group]]\n")
    with pytest.raises(SpecError, match=r"d\.toml has a plan that is no table"):
        parse("plan = 3\n" + HEAD + "[[group]]\n")
