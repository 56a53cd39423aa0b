"""`rackscale generate`: one shot, no server."""

from typing import TYPE_CHECKING, Annotated

import typer

from rackscale.cli import options as o
from rackscale.cli.output import print_json, print_text
from rackscale.core import Request, RequestId, Sampling, SpecError, TokenId
from rackscale.runtime.sampling import validate_sampling
from rackscale.specs import pools_of

if TYPE_CHECKING:
    from rackscale.checkpoint import Checkpoint
    from rackscale.runtime.inline import Completion

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
        int | None, typer.Option(metavar="K", help="Log-probabilities, and those of the K best tokens.")
    ] = None,
    mixed: o.MixedOption = None,
    prefill: o.PrefillOption = None,
    decode: o.DecodeOption = None,
    tp: o.TpOption = None,
    redundant: o.RedundantOption = 0,
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

    layout = pools_of(mixed=mixed, prefill=prefill, decode=decode, tp=tp, redundant_experts=redundant)
    if (prompt is None) == (prompt_ids is None):
        raise SpecError("the prompt is missing or given twice", hint="give --prompt or --prompt-ids")
    options = LocalOptions(
        layout=layout,
        kernels=kernels.value,
        activations=activations.value,
        weights=weights.value,
        max_model_len=max_model_len,
        kv_gib=kv_gib,
        block_size=block_size,
        max_batched_tokens=max_batched_tokens,
        max_running=1,
        tokenizer_required=prompt_ids is None,
    )
    with open_local(model, options) as local:
        request = Request(
            id=RequestId("generate"),
            prompt=_tokens(local.checkpoint, prompt, prompt_ids),
            max_tokens=max_tokens,
            stop_token_ids=local.checkpoint.generation.eos_token_ids,
            sampling=_sampling(local.checkpoint, temperature, seed, logprobs),
        )
        completion = local.driver.run([request])[request.id]
    text = _text(local.checkpoint, completion)
    if as_json:
        print_json(_object(completion, text, len(request.prompt)))
    else:
        print_text(text if prompt is None else prompt + text)


def _sampling(
    checkpoint: "Checkpoint", temperature: float | None, seed: int, logprobs: int | None
) -> Sampling:
    """Greedy unless the option or the checkpoint says otherwise."""
    defaults = checkpoint.generation.sampling()
    sampling = Sampling(
        temperature=defaults.temperature if temperature is None else temperature,
        top_k=defaults.top_k,
        top_p=defaults.top_p,
        repetition_penalty=defaults.repetition_penalty,
        seed=seed,
        num_logprobs=logprobs,
    )
    validate_sampling(sampling, vocab_size=checkpoint.spec.vocab_size)
    return sampling


def _tokens(checkpoint: "Checkpoint", prompt: str | None, ids: str | None) -> tuple[TokenId, ...]:
    if prompt is not None:
        assert checkpoint.tokenizer is not None, "open_local requires one where there is a text"
        return tuple(checkpoint.tokenizer.encode(prompt))
    try:
        tokens = tuple(TokenId(int(word)) for word in str(ids).split(","))
    except ValueError:
        raise SpecError(f"--prompt-ids {ids} are no integers", hint="give them as 1,2,3") from None
    vocab_size = checkpoint.spec.vocab_size
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise SpecError(f"--prompt-ids holds {token}", hint=f"the vocabulary is 0 to {vocab_size - 1}")
    return tokens


def _object(completion: "Completion", text: str, num_prompt: int) -> dict[str, object]:
    times = completion.times_s
    tpot_ms = (times[-1] - times[0]) / (len(times) - 1) * MS_PER_S if len(times) > 1 else None
    return {
        "text": text,
        "token_ids": completion.token_ids,
        "logprobs": [entry.logprob for entry in completion.logprobs],
        "top_logprobs": [entry.top for entry in completion.logprobs],
        "finish_reason": completion.reason.value,
        "prompt_tokens": num_prompt,
        "ttft_s": times[0] - completion.arrived_s,
        "tpot_ms": tpot_ms,
    }


def _text(checkpoint: "Checkpoint", completion: "Completion") -> str:
    """The output as text; where there is no tokenizer, the ids."""
    if checkpoint.tokenizer is None:
        return ",".join(map(str, completion.token_ids))
    return checkpoint.tokenizer.decode(completion.token_ids)
