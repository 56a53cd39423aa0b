"""Models by what a user names: the catalog's, a file like the catalog's, or any Hugging Face config.json."""

from collections.abc import Mapping
from pathlib import Path

from rackscale.checkpoint.families import family_of
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.shards import read_json
from rackscale.checkpoint.sizes import check_sizes
from rackscale.core import SpecError
from rackscale.specs.catalog import CatalogModel, is_path, load_model

CONFIG = "config.json"
# What quantisation methods of config.json leave routed experts and other matrices in.
_METHODS = {
    "fp8": ("fp8", "fp8"),
    "fbgemm_fp8": ("fp8", "fp8"),
    "mxfp4": ("mxfp4", "bf16"),
    "modelopt": ("nvfp4", "bf16"),
    "modelopt_fp4": ("nvfp4", "bf16"),
    "gptq": ("int4", "bf16"),
    "awq": ("int4", "bf16"),
}
_BITS = {4: ("int4", "bf16"), 8: ("fp8", "fp8")}  # of compressed-tensors


def model_of(name: str) -> CatalogModel:
    """A name of the catalog, a TOML file like the catalog's, a config.json, or a folder that has one.

    Raises SpecError where there is none, or where it is of no architecture that this project knows.
    """
    path = Path(name)
    if path.suffix == ".json":
        return _published(path)
    if (path / CONFIG).is_file():
        return _published(path / CONFIG)
    if is_path(name) and path.is_dir():
        raise SpecError(f"{path} has no {CONFIG}", hint="give a Hugging Face folder, or a model's name")
    return load_model(name)


def _published(path: Path) -> CatalogModel:
    config = Fields(read_json(path), path)
    spec = family_of(config).read(config)
    check_sizes(spec, path)
    weights, linear = _formats(config)
    name = path.resolve().parent.name if path.name == CONFIG else path.stem
    return CatalogModel(
        name=name,
        title=name,
        hf_id=str(config.values.get("_name_or_path") or ""),
        spec=spec,
        weights=weights,
        linear_weights=linear,
        mtp_layers=config.get("num_nextn_predict_layers", int, 0),
        context=spec.max_positions,
        facts={},
    )


def _formats(config: Fields) -> tuple[str, str]:
    """Of routed experts and of the rest."""
    quantised = config.sub("quantization_config")
    if quantised is None:
        return "bf16", "bf16"
    method = quantised.get("quant_method", str, "")
    if method in _METHODS:
        return _METHODS[method]
    if method == "compressed-tensors":
        return _compressed(quantised)
    raise SpecError(
        f"quant_method in {config.path} is {method!r}",
        hint=f"supported: {', '.join(sorted([*_METHODS, 'compressed-tensors']))}",
    )


def _compressed(quantised: Fields) -> tuple[str, str]:
    groups = quantised.values.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping) or weights.get("num_bits") not in _BITS:
        raise SpecError(
            f"config_groups in {quantised.path} has no weights of 4 or 8 bits", hint="give a catalog name"
        )
    if weights.get("type") == "float" and weights["num_bits"] == 4:
        return "nvfp4", "bf16"
    return _BITS[weights["num_bits"]]
