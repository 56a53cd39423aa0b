"""`rackscale catalog`: what is known of chips, systems and models, and from where."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, assert_never

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json
from rackscale.core import SpecError
from rackscale.specs import AttentionSpec, MlaSpec
from rackscale.specs.catalog import (
    KINDS,
    CatalogModel,
    ChipSpec,
    SystemSpec,
    closest,
    is_path,
    load_chip,
    load_model,
    load_system,
    names,
)
from rackscale.specs.catalog.system import PRICES
from rackscale.specs.counts import count, kv_bytes_per_token

Entry = CatalogModel | SystemSpec | ChipSpec
PIPE_WIDTH = 160  # columns where stdout is no terminal
_LEGENDS = {
    "models": "Parameters with embedding and head. KV in BF16. Heads of queries/keys x width, or x latent.",
    "systems": "* announced. Rates are a chip's, dense, one direction. $: hyperscaler / neocloud / rental.",
    "chips": "Rates are dense. HBM as the driver has it, where that is known.",
}

_LOADERS: Mapping[str, Callable[[str], Entry]] = {
    "models": load_model,
    "systems": load_system,
    "chips": load_chip,
}


def catalog(
    kind: Annotated[
        str | None, typer.Argument(metavar="[models|systems|chips]", help="Of which kind. Default: all.")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A name of the list, or a TOML file of your own.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List chips, systems and models, or print every field of one with its unit, source and confidence.

    Example: rackscale catalog systems gb200-nvl72
    """
    if kind is not None and kind not in KINDS:
        kind, name = _kind_of(kind, name), kind
    if kind is not None and name is not None:
        entry = _LOADERS[kind](name)
        if as_json:
            print_json(_entry_json(kind, entry))
        else:
            _print_entry(entry)
        return
    wanted = KINDS if kind is None else (kind,)
    lists = {kind: [_LOADERS[kind](name) for name in names(kind)] for kind in wanted}
    if as_json:
        print_json({kind: [_key_figures(entry) for entry in entries] for kind, entries in lists.items()})
    else:
        for kind, entries in lists.items():
            _print_list(kind, [_row(entry) for entry in entries])


def _kind_of(word: str, further: str | None) -> str:
    """The kind of a name that stands where a kind is expected."""
    if further is None:
        for kind in KINDS:
            if word in names(kind):
                return kind
        if is_path(word):
            raise SpecError(
                f"{word} may be of any kind", hint=f"give one of {', '.join(KINDS)} before the path"
            )
    known = [*KINDS, *(name for kind in KINDS for name in names(kind))] if further is None else KINDS
    raise SpecError(f"{word!r} is neither a kind nor a name", hint=closest(word, known, "give"))


def _key_figures(entry: Entry) -> dict[str, object]:
    """What specs hold, in base units, and what is computed from it."""
    match entry:
        case CatalogModel():
            return {"name": entry.name, "title": entry.title, **_model_figures(entry)}
        case SystemSpec():
            chip = _key_figures(entry.chip)
            del chip["name"], chip["title"]
            return {
                "name": entry.name,
                "title": entry.title,
                "announced": entry.announced,
                "chip": entry.chip.name,
                **chip,
                "domain_chips": entry.domain_chips,
                "scale_up_bytes_per_s": entry.scale_up_bytes_per_s,
                "scale_out_bytes_per_s": entry.scale_out_bytes_per_s,
                "host_bytes_per_chip": entry.host_bytes_per_chip,
                "host_link_bytes_per_s": entry.host_link_bytes_per_s,
                "power_w": dict(entry.power_w),
                "usd_per_chip_hour": dict(entry.usd_per_chip_hour),
            }
        case ChipSpec():
            return {
                "name": entry.name,
                "title": entry.title,
                "generation": entry.generation,
                "tensor_flops": dict(entry.tensor_flops),
                "hbm_bytes": entry.hbm_bytes,
                "hbm_bytes_per_s": entry.hbm_bytes_per_s,
                "tdp_w": entry.tdp_w,
            }
        case _:
            assert_never(entry)


def _model_figures(model: CatalogModel) -> dict[str, object]:
    spec, counts = model.spec, count(model.spec)
    latent = isinstance(spec.attention, MlaSpec)
    return {
        "hf_id": model.hf_id,
        "layers": spec.num_layers,
        "moe_layers": counts.num_moe_layers,
        "hidden": spec.hidden,
        "attention": "MLA" if latent else "GQA",
        "heads": spec.attention.num_heads,
        "kv_heads": 1 if isinstance(spec.attention, MlaSpec) else spec.attention.num_kv_heads,
        "experts": counts.num_experts,
        "top_k": counts.top_k,
        "total_params": counts.total,
        "active_params": counts.active,
        "active_params_no_embed": counts.active_no_embed,
        "kv_bytes_per_token_bf16": kv_bytes_per_token(spec, 2),
        "weights": model.weights,
        "linear_weights": model.linear_weights,
        "mtp_layers": model.mtp_layers,
        "context": model.context,
    }


def _entry_json(kind: str, entry: Entry) -> dict[str, object]:
    figures = _key_figures(entry)
    return {
        "kind": kind.removesuffix("s"),
        "name": figures.pop("name"),
        "title": figures.pop("title"),
        "spec": figures,
        "fields": {name: asdict(fact) for name, fact in entry.facts.items()},
    }


def _row(entry: Entry) -> dict[str, str]:
    """An entry's line of a list, by the columns' headings."""
    match entry:
        case CatalogModel(spec=spec):
            counts = count(spec)
            return {
                "model": entry.name,
                "layers (MoE)": f"{spec.num_layers} ({counts.num_moe_layers})",
                "hidden": str(spec.hidden),
                "attention": _attention(spec.attention),
                "experts": f"{counts.num_experts} top-{counts.top_k}",
                "params G": f"{counts.total / 1e9:.2f}",
                "active G": f"{counts.active / 1e9:.2f}",
                "KV B/token": f"{kv_bytes_per_token(spec, 2):.0f}",
                "experts in": entry.weights,
                "context": str(entry.context),
            }
        case SystemSpec(chip=chip):
            return {
                "system": f"{entry.name}{' *' if entry.announced else ''}",
                "chip": chip.name,
                **_chip_cells(chip),
                "domain": str(entry.domain_chips),
                "up GB/s": f"{entry.scale_up_bytes_per_s / 1e9:.0f}",
                "out GB/s": f"{entry.scale_out_bytes_per_s / 1e9:.0f}",
                "kW IT/utility": " / ".join(f"{watts / 1e3:.2f}" for watts in entry.power_w.values()),
                "$/chip-hour": " / ".join(
                    f"{entry.usd_per_chip_hour[price]:.2f}" if price in entry.usd_per_chip_hour else "-"
                    for price in PRICES
                ),
            }
        case ChipSpec():
            return {
                "chip": entry.name,
                "generation": entry.generation,
                **_chip_cells(entry),
                "TDP W": f"{entry.tdp_w:.0f}",
            }
        case _:
            assert_never(entry)


def _chip_cells(chip: ChipSpec) -> dict[str, str]:
    rates = chip.tensor_flops
    return {
        "FP4/FP8/BF16 PFLOP/s": " / ".join(
            f"{rates[math] / 1e15:.2f}" if math in rates else "-" for math in ("fp4", "fp8", "bf16")
        ),
        "HBM GB": f"{chip.hbm_bytes / 1e9:.1f}",
        "TB/s": f"{chip.hbm_bytes_per_s / 1e12:.2f}",
    }


def _attention(attention: AttentionSpec) -> str:
    if isinstance(attention, MlaSpec):
        return f"MLA {attention.num_heads} x {attention.kv_lora_rank} + {attention.rope_head_dim}"
    return f"GQA {attention.num_heads}/{attention.num_kv_heads} x {attention.head_dim}"


def _print_list(kind: str, rows: Sequence[Mapping[str, str]]) -> None:
    table = Table(title=kind, title_justify="left", caption=_LEGENDS[kind], caption_justify="left")
    for number, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*row.values())
    _console().print(table)


def _print_entry(entry: Entry) -> None:
    """Fields as a table; sources by number, since they are long and many fields share one."""
    table = Table(title=entry.title, title_justify="left")
    table.add_column("field", no_wrap=True)
    table.add_column("value", justify="right")
    for heading in ("unit", "confidence", "source", "note"):
        table.add_column(heading)
    sources: dict[str, int] = {}
    for name, fact in entry.facts.items():
        number = sources.setdefault(fact.source, len(sources) + 1)
        value = fact.value if isinstance(fact.value, str) else f"{fact.value:.15g}"
        cells = (name, value, fact.unit, fact.confidence, f"[{number}]", fact.note)
        table.add_row(*(Text(cell) for cell in cells))
    console = _console()
    console.print(table)
    for source, number in sources.items():
        console.print(Text(f"[{number}] {source}"))


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
