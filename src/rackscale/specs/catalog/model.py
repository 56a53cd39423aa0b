"""Models: what they are built of, and in which formats their weights were published."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rackscale.specs.catalog.fact import CONFIDENCES, Fact, read_further
from rackscale.specs.catalog.model_spec import read_spec
from rackscale.specs.catalog.table import Table, is_path, open_table
from rackscale.specs.model import ModelSpec

WEIGHTS = ("int4", "fp8", "mxfp4", "bf16", "nvfp4")

# The units of a configuration's numbers; a number that is not here is a ratio.
_UNITS = {
    "attention.clip_qkv": "",
    "mtp_layers": "layers",
    "num_layers": "layers",
    "dense_layers": "layers",
    "moe_every": "layers",
    "windows": "tokens",
    "context": "tokens",
    "max_positions": "tokens",
    "rope.scaling.original_max_positions": "tokens",
    "vocab_size": "tokens",
    "attention.num_heads": "heads",
    "attention.num_kv_heads": "heads",
    "router.num_experts": "experts",
    "router.top_k": "experts",
    "router.num_groups": "groups",
    "router.topk_groups": "groups",
} | dict.fromkeys(
    (
        "hidden",
        "dense_width",
        "moe.width",
        "moe.shared_width",
        "rope.dim",
        "attention.q_lora_rank",
        "attention.kv_lora_rank",
        "attention.nope_head_dim",
        "attention.rope_head_dim",
        "attention.v_head_dim",
        "attention.head_dim",
    ),
    "elements",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogModel:
    """A published model. weights: the format of its routed experts; linear_weights: of its other matrices.
    mtp_layers: layers that guess further tokens, which `spec` does not count. context: tokens that it is
    published for. facts: every field of the configuration, and published figures."""

    name: str
    title: str = ""
    hf_id: str = ""
    spec: ModelSpec
    weights: str
    linear_weights: str
    mtp_layers: int
    context: int
    facts: Mapping[str, Fact] = field(default_factory=dict, hash=False, repr=False)


def load_model(name_or_path: str | Path) -> CatalogModel:
    """A model of the catalog, or of a user's TOML file with the same fields.

    Raises SpecError where there is no such name or file, or where a field is missing or wrong.
    """
    return (
        _model_of(open_table("models", name_or_path)) if is_path(name_or_path) else _named(str(name_or_path))
    )


@cache
def _named(name: str) -> CatalogModel:
    return _model_of(open_table("models", name))


def _model_of(table: Table) -> CatalogModel:
    origin, config = table.need("origin"), table.need("config")
    source, note = origin.text("source"), origin.text("note", "")
    confidence = origin.choice("confidence", CONFIDENCES)
    origin.close()
    facts = {
        name: Fact(value=value, unit=_UNITS.get(name, ""), source=source, confidence=confidence)
        for name, value in _flat(config.values)
    }
    if note:
        facts["about"] = Fact(value=note, unit="", source=source, confidence=confidence)
    model = CatalogModel(
        name=table.text("name"),
        title=table.text("title"),
        hf_id=table.text("hf_id", ""),
        weights=config.choice("weights", WEIGHTS),
        linear_weights=config.choice("linear_weights", WEIGHTS),
        mtp_layers=config.whole("mtp_layers", 0, least=0),
        context=config.whole("context"),
        spec=read_spec(config),
        facts=facts | read_further(table.sub("further", required=False)),
    )
    table.close()
    return model


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float | str]]:
    """Numbers as floats, what is no number as TOML has it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)
        else:
            yield prefix + name, str(value).lower() if isinstance(value, bool) else str(value)
