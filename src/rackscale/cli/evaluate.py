"""`rackscale evaluate`: bits per byte and perplexity of a text."""

import math
import time
from pathlib import Path
from typing import Annotated

import typer

from rackscale.cli import options as o
from rackscale.cli.output import print_json, print_text, progress
from rackscale.core import SpecError


def evaluate(
    model: o.ModelArgument,
    *,
    text: Annotated[Path, typer.Option(metavar="FILE", help="A text in UTF-8.")],
    weights: o.WeightsOption = o.Weights.AUTO,
    activations: o.ActivationsOption = o.Activations.AUTO,
    kernels: o.KernelsOption = o.Kernels.AUTO,
    max_model_len: o.MaxModelLenOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Measure how well a model predicts a text.

    Bits per byte is the information in the text's tokens, by the model, over its bytes in UTF-8;
    perplexity is by token. Windows of the model's context slide by half.

    Example: rackscale evaluate models/austen-moe --text models/heldout.txt
    """
    from rackscale.runtime.local import LocalOptions, open_rank  # noqa: PLC0415 (loads torch)
    from rackscale.runtime.score import score  # noqa: PLC0415 (loads torch)

    content = _read(text)
    checkpoint, deployment, rank = open_rank(
        model,
        LocalOptions(
            kernels=kernels.value,
            activations=activations.value,
            weights=weights.value,
            max_model_len=max_model_len,
            block_size=o.DEFAULT_BLOCK_SIZE,
            max_batched_tokens=o.DEFAULT_MAX_BATCHED_TOKENS,
            max_running=1,
        ),
    )
    tokenizer, begin = checkpoint.tokenizer, checkpoint.generation.bos_token_id
    assert tokenizer is not None, "open_rank requires one unless told otherwise"
    encoded = tokenizer.encode(content)
    tokens = encoded if begin is None else [begin, *encoded]
    if len(tokens) < 2:
        raise SpecError(f"{text} is too short", hint="give at least two tokens of text")
    start_s = time.monotonic()
    with progress() as bar:
        task = bar.add_task("scoring", total=len(tokens))
        nats = score(
            rank,
            tokens,
            deployment.max_model_len,
            lambda done, _: bar.update(task, completed=done),
        )
    num_scored = len(tokens) - 1
    result = {
        "bits_per_byte": nats / math.log(2) / len(content.encode()),
        "perplexity": math.exp(nats / num_scored),
        "tokens": num_scored,
        "seconds": time.monotonic() - start_s,
    }
    if as_json:
        print_json(result)
    else:
        print_text("\n".join(f"{name:14} {value:.4f}" for name, value in result.items()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})", hint="give a text file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is no UTF-8", hint="give a text file in UTF-8") from None
