import pytest
from user_files import fact, model, write

from rackscale.core import SpecError
from rackscale.specs import GqaSpec, LayerSpec
from rackscale.specs.catalog import load_model


def test_a_model_of_the_catalog():
    kimi = load_model("kimi-k2-thinking")
    assert kimi.hf_id == "moonshotai/Kimi-K2-Thinking"
    assert (kimi.weights, kimi.linear_weights) == ("int4", "bf16")
    assert (kimi.mtp_layers, kimi.context) == (0, 262144)
    assert kimi.spec.num_layers == 61
    assert [layer.moe for layer in kimi.spec.layers[:3]] == [False, True, True]
    assert load_model("kimi-k2-thinking") is kimi


def test_every_field_of_a_configuration_is_a_fact():
    facts = load_model("deepseek-r1").facts
    assert facts["router.num_experts"].value == 256
    assert facts["router.num_experts"].unit == "experts"
    assert facts["attention.kind"].value == "mla"
    assert facts["tied_embeddings"].value == "false"
    assert facts["attention.kv_lora_rank"].source == facts["hidden"].source
    assert facts["about"].value.startswith("8 groups, 4 kept")


def test_a_figure_that_is_published_stands_beside_the_count():
    facts = load_model("deepseek-v3").facts
    assert facts["published_active"].value == 36.7
    assert facts["active_params"].value == 37552282624


def test_a_model_of_ones_own(tmp_path):
    spec = load_model(write(tmp_path / "m.toml", model()))
    assert spec.spec.attention == GqaSpec(num_heads=8, num_kv_heads=2, head_dim=16)
    assert spec.spec.layers == (LayerSpec(moe=True),) * 4
    assert (spec.hf_id, spec.mtp_layers) == ("", 0)
    assert "about" not in spec.facts
    assert spec.facts["num_layers"].confidence == "assumed"
    assert load_model(str(tmp_path / "m.toml")) == spec


def test_lists_are_facts_too(tmp_path):
    values = model(windows=[128, 0]) | {"further": {"loss": fact(1.2, "nats")}}
    facts = load_model(write(tmp_path / "m.toml", values)).facts
    assert facts["windows"].value == "[128, 0]"
    assert facts["windows"].unit == "tokens"
    assert facts["loss"].value == 1.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (model(weights="fp4"), "weights in {}, [config] is 'fp4': give nvfp4"),
        (model(context=0), "context in {}, [config] is 0: it must be a whole number, at least 1"),
        (model() | {"origin": {"source": "me"}}, "{}, [origin] has no confidence"),
        (
            model() | {"origin": {"source": "me", "confidence": "assumed", "x": 1}},
            "[origin] has an unknown 'x'",
        ),
        (model() | {"x": 1}, "{} has an unknown 'x'"),
        ({"name": "m"}, "{} has no origin: add it: a table"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, values, message):
    path = write(tmp_path / "m.toml", values)
    with pytest.raises(SpecError) as error:
        load_model(path)
    assert message.format(path) in str(error.value)


def test_a_name_that_is_not_there():
    with pytest.raises(SpecError, match=r"no model 'kimi-k2-thinkin': give kimi-k2-thinking, or a TOML"):
        load_model("kimi-k2-thinkin")
