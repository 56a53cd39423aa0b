"""`rackscale export`: launch files that make a cluster run a deployment."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rackscale import __version__
from rackscale.cli.options import JsonOption
from rackscale.cli.output import print_json, print_text
from rackscale.cli.yaml_text import yaml_text
from rackscale.core import SpecError
from rackscale.plan.deployment import find_planned
from rackscale.plan.export import DEFAULT_BACKEND, TARGETS, Export, LaunchFile, export_plan
from rackscale.serve.export import ExportOptions, dynamo_manifests, name_of, sizes_of
from rackscale.specs import read_deployment

OWN = "rackscale"


def export(
    deployment: Annotated[Path, typer.Argument(metavar="DEPLOYMENT.toml", help="A deployment file.")],
    *,
    to: Annotated[str, typer.Option(metavar="TARGET", help=", ".join(TARGETS) + ".")],
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"What Dynamo runs: vllm, sglang, trtllm or {OWN}. Default: {DEFAULT_BACKEND} for a plan,"
            f" else {OWN}.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write files there. Default: stdout.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the graph. Default: the model's.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Default: NVIDIA's for the backend, rackscale:VERSION."),
    ] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NS", help="Default: that of kubectl.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="A folder or Hugging Face name. Default: the model's.")
    ] = None,
    ranks_per_host: Annotated[
        int | None, typer.Option(metavar="N", help=f"For {OWN}. Default: all ranks on one host.")
    ] = None,
    model_claim: Annotated[
        str | None, typer.Option(metavar="PVC", help=f"For {OWN}: volume with the model's folder.")
    ] = None,
    weights_gib: Annotated[
        float | None, typer.Option(metavar="X", help=f"For {OWN}: of a model whose folder is not here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the files that launch a deployment: of a plan with other engines, of groups with rackscale.

    What a target cannot say is a comment in its files, and in "notes" of --json.

    Example: rackscale export deployment.toml --to dynamo --out manifests
    """
    planned = find_planned(deployment)
    if to not in TARGETS:
        raise SpecError(f"--to {to} is not known", hint=f"give one of {', '.join(TARGETS)}")
    if backend is not None and to != "dynamo":
        raise SpecError(f"--backend with --to {to}", hint="leave it out; it says what Dynamo runs")
    if backend == OWN or (planned is None and backend is None and to == "dynamo"):
        if checkpoint is not None:
            raise SpecError("--checkpoint", hint=f"leave it out; {OWN}'s model is named in the file")
        file = read_deployment(deployment)
        options = ExportOptions(
            name=name_of(file.model) if name is None else name,
            image=f"rackscale:{__version__}" if image is None else image,
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
        return
    if planned is None:
        raise SpecError(
            f"{deployment} has no [plan] for {backend or to}",
            hint="give a file that `rackscale plan --out` wrote",
        )
    for option, value in (
        ("--ranks-per-host", ranks_per_host),
        ("--model-claim", model_claim),
        ("--weights-gib", weights_gib),
    ):
        if value is not None:
            raise SpecError(f"{option} for {backend or to}", hint=f"leave it out, or give --backend {OWN}")
    plan = export_plan(
        planned,
        to,
        backend=DEFAULT_BACKEND if backend is None else backend,
        checkpoint=checkpoint,
        name=name,
        image=image,
        namespace=namespace,
    )
    _say(plan, out, as_json=as_json)


def _say(plan: Export, out: Path | None, *, as_json: bool) -> None:
    texts = {file.name: _text(file) for file in plan.files}
    files = [] if out is None else [str(_write(out, name, text)) for name, text in texts.items()]
    if as_json:
        pools = [{**asdict(pool), "gpus": pool.gpus} for pool in plan.pools]
        print_json(
            {
                "target": plan.target,
                "backend": plan.backend,
                "files": files,
                "notes": plan.notes,
                "gpus": plan.gpus,
                "pools": pools,
                "versions": plan.versions,
                "contents": texts,
            }
        )
    elif files:
        print_text("\n".join(files))
    elif len(texts) == 1:
        print_text(next(iter(texts.values())).rstrip("\n"))
    else:
        print_text("\n".join(f"==> {name} <==\n{text}" for name, text in texts.items()).rstrip("\n"))


def _text(file: LaunchFile) -> str:
    comments = "".join(f"# {line}\n" for line in file.comments)
    if file.script:
        return f"#!/bin/sh\n{comments}{file.script}"
    return comments + yaml_text(file.documents)


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".sh":
            path.chmod(0o755)
    except OSError as error:
        raise SpecError(f"{path} cannot be written ({error.strerror})", hint="give another --out") from None
    return path
