"""`rackscale generate`: one shot, no server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rackscale.cli import options as o
from rackscale.cli.output import print_json
from rackscale.core import Request, RequestId, Sampling, SpecError, TokenId

if TYPE_CHECKING:
    from rackscale.checkpoint import Tokenizer
    from rackscale.runtime.inline import Completion
    from rackscale.runtime.local import LocalModel

MS_PER_S = 1000.0


def generate(
    model: o.ModelArgument,
    *,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The text to go on from.")] = None,
    prompt_ids: Annotated[
        str | None, typer.Option(metavar="1,2,3", help="The same in token ids; needs no tokenizer.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Output tokens at most.")] = 128,
    temperature: Annotated[
        float | None, typer.Option(metavar="X", help="0: greedy. Default: the checkpoint's, or 0.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same text.")] = 0,
    logprobs: Annotated[
        int | None, typer.Option(metavar="K", help="Log-probabilities, and of the K best tokens.")
    ] = None,
    mixed: o.MixedOption = 1,
    weights: o.WeightsOption = o.Weights.AUTO,
    activations: o.ActivationsOption = o.Activations.AUTO,
    kernels: o.KernelsOption = o.Kernels.AUTO,
    max_model_len: o.MaxModelLenOption = None,
    kv_gib: o.KvGibOption = None,
    block_size: o.BlockSizeOption = o.DEFAULT_BLOCK_SIZE,
    max_batched_tokens: o.MaxBatchedTokensOption = o.DEFAULT_MAX_BATCHED_TOKENS,
    as_json: o.JsonOption = False,
) -> None:
    """Go on from a prompt.

    Example: rackscale generate models/austen-moe --prompt "It is a truth universally"
    """
    from rackscale.runtime.local import LocalOptions, open_local  # noqa: PLC0415 (loads torch)

    o.check_layout(mixed=mixed, weights=weights)
    if (prompt is None) == (prompt_ids is None):
        raise SpecError("the prompt is missing or given twice", hint="give --prompt or --prompt-ids")
    local = open_local(
        model,
        LocalOptions(
            kernels=kernels.value,
            activations=activations.value,
            max_model_len=max_model_len,
            kv_gib=kv_gib,
            block_size=block_size,
            max_batched_tokens=max_batched_tokens,
            max_running=1,
            tokenizer_required=prompt_ids is None,
        ),
    )
    request = Request(
        id=RequestId("generate"),
        prompt=_prompt_tokens(local, prompt, prompt_ids),
        max_tokens=max_tokens,
        stop_token_ids=local.checkpoint.generation.eos_token_ids,
        sampling=_sampling(local, temperature, seed, logprobs),
    )
