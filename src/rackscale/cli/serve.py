"""`rackscale serve`: the OpenAI-compatible server."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from rackscale.cli import options as o
from rackscale.core import SpecError
from rackscale.serve.discovery import Discovery
from rackscale.serve.options import DEFAULT_DECODE, DEFAULT_PREFILL, ServeOptions
from rackscale.specs import pools_of, read_deployment


def serve(
    model: o.ModelArgument,
    *,
    host: o.HostOption = "127.0.0.1",
    port: o.PortOption = 8000,
    served_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What clients call the model. Default: the folder's.")
    ] = None,
    mixed: o.MixedOption = None,
    prefill: o.PrefillOption = None,
    decode: o.DecodeOption = None,
    tp: o.TpOption = None,
    redundant: o.RedundantOption = 0,
    deployment: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Layout and sizes, instead of options.")
    ] = None,
    hosts: Annotated[
        int, typer.Option(metavar="N", help="Hosts that join with ranks; this one has none then.", min=0)
    ] = 0,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where `rackscale host` joins.")
    ] = None,
    hang_limit_s: Annotated[
        float, typer.Option(metavar="X", help="A process silent for so long counts as dead.", min=0.1)
    ] = 30.0,
    wire: Annotated[
        o.WireFormat, typer.Option(help="Format of tokens on their way to other ranks' experts.")
    ] = o.WireFormat.FP32,
    router_skew: Annotated[float, typer.Option(hidden=True)] = 0.0,
    weights: o.WeightsOption = o.Weights.AUTO,
    activations: o.ActivationsOption = o.Activations.AUTO,
    kernels: o.KernelsOption = o.Kernels.AUTO,
    max_model_len: o.MaxModelLenOption = None,
    kv_gib: o.KvGibOption = None,
    block_size: o.BlockSizeOption = o.DEFAULT_BLOCK_SIZE,
    max_batched_tokens: o.MaxBatchedTokensOption = o.DEFAULT_MAX_BATCHED_TOKENS,
    max_running: o.MaxRunningOption = o.DEFAULT_MAX_RUNNING,
    max_waiting: Annotated[
        int, typer.Option(metavar="N", help="Requests that may queue; more get a 503.", min=1)
    ] = 1024,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Events and commands, for `replay`.")
    ] = None,
    tool_call_parser: Annotated[str | None, typer.Option(metavar="NAME", help="One of Dynamo's.")] = None,
    reasoning_parser: Annotated[str | None, typer.Option(metavar="NAME", help="One of Dynamo's.")] = None,
    frontend: Annotated[
        bool, typer.Option("--frontend/--no-frontend", help="Whether clients ask here, or this is a worker.")
    ] = True,
    discovery: o.DiscoveryOption = Discovery.MEM,
    dynamo_host: o.DynamoHostOption = "127.0.0.1",
    migration_limit: o.MigrationLimitOption = 3,
    tls_cert: o.TlsCertOption = None,
    tls_key: o.TlsKeyOption = None,
    drain_s: o.DrainOption = 30.0,
    as_json: o.JsonLogOption = False,
) -> int:
    """Serve a model over the OpenAI API.

    MODEL may be a deployment file, NAME.toml, that names the model; one that `rackscale plan` wrote runs
    its pools at reduced size.

    Example: rackscale serve models/austen-moe --port 8000
    """
    from rackscale.serve.server import serve as run  # noqa: PLC0415 (--help is fast)

    if model.suffix == ".toml":
        if deployment is not None:
            raise SpecError(f"{model} and --deployment", hint="give one deployment file")
        deployment, model = model, Path(read_deployment(model).model)
    given = any(value is not None for value in (mixed, prefill, decode, tp))
    if deployment is not None and given:
        raise SpecError(
            "--deployment with a layout", hint="give the file or --mixed, --prefill, --decode and --tp"
        )
    if hosts and listen is None:
        raise SpecError(f"--hosts {hosts} without --listen", hint="give --listen HOST:PORT for them to join")
    if not given:
        prefill, decode = DEFAULT_PREFILL, DEFAULT_DECODE
    layout = pools_of(mixed=mixed, prefill=prefill, decode=decode, tp=tp, redundant_experts=redundant)
    if not frontend and discovery is Discovery.MEM:
        raise SpecError("--no-frontend without --discovery", hint="give --discovery file or etcd")
    check_tls(tls_cert, tls_key)
    log_to_stderr(as_json=as_json)
    return run(
        ServeOptions(
            model=model,
            host=host,
            port=port,
            served_name=served_name,
            kernels=kernels.value,
            activations=activations.value,
            weights=weights.value,
            max_model_len=max_model_len,
            kv_gib=kv_gib,
            block_size=block_size,
            max_batched_tokens=max_batched_tokens,
            max_running=max_running,
            max_waiting=max_waiting,
            log=log,
            tool_call_parser=tool_call_parser,
            reasoning_parser=reasoning_parser,
            tls_cert=tls_cert,
            tls_key=tls_key,
            drain_s=drain_s,
            layout=layout,
            deployment=deployment,
            hosts=hosts,
            listen=listen,
            hang_limit_s=hang_limit_s,
            wire=wire.value,
            router_skew=router_skew,
            frontend=frontend,
            discovery=discovery,
            dynamo_host=dynamo_host,
            migration_limit=migration_limit,
        )
    )


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def check_tls(tls_cert: Path | None, tls_key: Path | None) -> None:
    """Raises SpecError where one is given without the other."""
    if (tls_cert is None) != (tls_key is None):
        raise SpecError("--tls-cert and --tls-key", hint="give both or neither")


def log_to_stderr(*, as_json: bool) -> None:
    """Our own log lines, and of others' only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rackscale").setLevel(logging.INFO)
