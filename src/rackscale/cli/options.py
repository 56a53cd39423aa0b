"""Options that several verbs share, spelled once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rackscale.serve.discovery import Discovery
from rackscale.specs.sizing import (
    DEFAULT_BLOCK_SIZE,
    DEFAULT_MAX_BATCHED_TOKENS,
    DEFAULT_MAX_RUNNING,
)

__all__ = [
    "DEFAULT_BLOCK_SIZE",
    "DEFAULT_MAX_BATCHED_TOKENS",
    "DEFAULT_MAX_RUNNING",
    "Activations",
    "ActivationsOption",
    "BlockSizeOption",
    "DecodeOption",
    "DiscoveryOption",
    "DrainOption",
    "DynamoHostOption",
    "HostOption",
    "JsonLogOption",
    "JsonOption",
    "Kernels",
    "KernelsOption",
    "KvGibOption",
    "MaxBatchedTokensOption",
    "MaxModelLenOption",
    "MaxRunningOption",
    "MigrationLimitOption",
    "MixedOption",
    "ModelArgument",
    "PortOption",
    "PrefillOption",
    "RedundantOption",
    "TlsCertOption",
    "TlsKeyOption",
    "TpOption",
    "Weights",
    "WeightsOption",
    "WireFormat",
]


class Weights(StrEnum):
    """In what format weights are held: the checkpoint's, or experts in NVFP4 whatever it has them in."""

    AUTO = "auto"
    CHECKPOINT = "checkpoint"
    NVFP4 = "nvfp4"


class Activations(StrEnum):
    """What activations are rounded to in products."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    NVFP4 = "nvfp4"


class Kernels(StrEnum):
    """Who computes."""

    AUTO = "auto"
    NATIVE = "native"
    REFERENCE = "reference"


class WireFormat(StrEnum):
    """In what format rows travel between ranks."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP8 = "fp8"


ModelArgument = Annotated[
    Path,
    typer.Argument(help="A Hugging Face folder: config.json, safetensors, tokenizer.json."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
MixedOption = Annotated[
    int | None,
    typer.Option("--mixed", metavar="N", help="Ranks that prefill and decode, and share the experts."),
]
PrefillOption = Annotated[
    int | None, typer.Option("--prefill", metavar="N", help="Ranks of a pool that only prefills.")
]
DecodeOption = Annotated[
    int | None, typer.Option("--decode", metavar="N", help="Ranks of a pool that only decodes.")
]
TpOption = Annotated[
    int | None,
    typer.Option("--tp", metavar="N", help="So many ranks that prefill share one attention."),
]
RedundantOption = Annotated[
    int,
    typer.Option("--redundant", metavar="N", help="Further copies of experts in each group.", min=0),
]
WeightsOption = Annotated[Weights, typer.Option(help="nvfp4: quantise experts while loading.")]
ActivationsOption = Annotated[
    Activations, typer.Option(help="What products round them to. auto: int8 if quantised, else fp32.")
]
KernelsOption = Annotated[Kernels, typer.Option(help="native: C++; reference: torch alone.")]
MaxModelLenOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Prompt and output together, tokens. Default: the model's."),
]
KvGibOption = Annotated[
    float | None,
    typer.Option(metavar="X", help="KV cache of all ranks, GiB. Default: what rows need, <= 4."),
]
BlockSizeOption = Annotated[int, typer.Option(metavar="N", help="Tokens per KV block.")]
MaxBatchedTokensOption = Annotated[int, typer.Option(metavar="N", help="Token budget of a step.")]
MaxRunningOption = Annotated[int, typer.Option(metavar="N", help="Sequences that run at once.")]
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]
DiscoveryOption = Annotated[
    Discovery, typer.Option(help="How Dynamo finds workers of other processes: not, by a folder, by etcd.")
]
DynamoHostOption = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Ours, at which Dynamo talks to other hosts.")
]
MigrationLimitOption = Annotated[
    int, typer.Option(metavar="N", help="Workers that a request may lose and go on.", min=0)
]
TlsCertOption = Annotated[Path | None, typer.Option(metavar="PEM", help="Serve HTTPS.")]
TlsKeyOption = Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.")]
DrainOption = Annotated[
    float, typer.Option(metavar="X", help="Seconds that running requests get after SIGTERM.", min=0)
]
JsonLogOption = Annotated[bool, typer.Option("--json", help="Log lines on stderr as JSON.")]
