"""`rackscale export`: manifests that make a cluster run a deployment."""

from pathlib import Path
from typing import Annotated

import typer

from rackscale import __version__
from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json, print_text
from rackscale.core import SpecError
from rackscale.serve.export import ExportOptions, dynamo_manifests, name_of, sizes_of, yaml_text
from rackscale.specs import read_deployment

TARGETS = ("dynamo",)


def export(
    deployment: Annotated[Path, typer.Argument(metavar="DEPLOYMENT.toml", help="A deployment file.")],
    *,
    to: Annotated[str, typer.Option(metavar="TARGET", help="dynamo: a DynamoGraphDeployment.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write NAME.yaml there. Default: stdout.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the graph. Default: the model folder's.")
    ] = None,
    image: Annotated[
        str, typer.Option(metavar="IMAGE", help="That has `rackscale`.")
    ] = f"rackscale:{__version__}",
    namespace: Annotated[str | None, typer.Option(metavar="NS", help="Default: that of kubectl.")] = None,
    ranks_per_host: Annotated[
        int | None, typer.Option(metavar="N", help="Default: all ranks on one host.")
    ] = None,
    model_claim: Annotated[
        str | None, typer.Option(metavar="PVC", help="Volume with the model's folder. Default: the image.")
    ] = None,
    weights_gib: Annotated[
        float | None, typer.Option(metavar="X", help="Of a model whose folder is not here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the manifests that run a deployment on Kubernetes.

    Example: rackscale export deployment.toml --to dynamo --out manifests
    """
    if to not in TARGETS:
        raise SpecError(f"--to {to} is not known", hint=f"give one of {', '.join(TARGETS)}")
    file = read_deployment(deployment)
    options = ExportOptions(
        name=name_of(file.model) if name is None else name,
        image=image,
        namespace=namespace,
        ranks_per_host=ranks_per_host,
        model_claim=model_claim,
    )
    manifests = dynamo_manifests(file, options, sizes_of(file, weights_gib=weights_gib))
    text = yaml_text(manifests)
    files = [] if out is None else [str(_write(out, f"{options.name}.yaml", text))]
    if as_json:
        print_json({"target": to, "name": options.name, "files": files, "manifests": manifests})
    else:
        print_text("\n".join(files) or text.rstrip("\n"))


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path} cannot be written ({error.strerror})", hint="give another --out") from None
    return path
