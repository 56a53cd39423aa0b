"""The figures of the model card: python models/train/measure.py MODEL TEXT.

Bits per byte by rackscale and, over the same windows, by transformers; parameters; how evenly the experts
of each layer are used on the text.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from rackscale.runtime.local import LocalOptions, open_rank
from rackscale.runtime.rank import Rank
from rackscale.runtime.score import score, windows


def by_transformers(model: Path, tokens: list[int], size: int) -> float:
    """The same sum of -ln p as `score`, by transformers in fp32."""
    peer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    nats = 0.0
    with torch.inference_mode():
        for window in windows(len(tokens), size):
            ids = torch.tensor([tokens[window.start : window.end]])
            logits = peer(ids[:, :-1], use_cache=False).logits[0]
            first = window.scored - window.start - 1
            nats += F.cross_entropy(
                logits[first:].double(), ids[0, window.scored - window.start :], reduction="sum"
            ).item()
    return nats


def loads(rank: Rank, tokens: list[int], size: int) -> np.ndarray:
    """Tokens by MoE layer and expert over the text, windows side by side."""
    moes = rank.model.moes
    counts = np.zeros((len(moes), moes[0].spec.router.num_experts), dtype=np.int64)
    for start in range(0, len(tokens) - 1, size):
        score(rank, tokens[start : start + size], size)
        for layer, moe in enumerate(moes):
            counts[layer] += np.bincount(moe.chosen_TK.numpy().ravel(), minlength=counts.shape[1])
    return counts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    options = parser.parse_args()
    sizes = LocalOptions(block_size=16, max_batched_tokens=512, max_running=1)
    checkpoint, deployment, rank = open_rank(options.model, sizes)
    size = deployment.max_model_len
    assert checkpoint.tokenizer is not None, "the bundled model has one"
    text = options.text.read_text(encoding="utf-8")
    tokens = [checkpoint.generation.bos_token_id, *checkpoint.tokenizer.encode(text)]
    bits = 1 / math.log(2) / len(text.encode())
    print(f"bits per byte: rackscale {score(rank, tokens, size) * bits:.4f}")
    print(f"bits per byte: transformers {by_transformers(options.model, tokens, size) * bits:.4f}")
    spec = checkpoint.spec
    total = sum(math.prod(entry.shape) for entry in checkpoint.metadata.tensors.values())
    assert spec.moe is not None, "the bundled model has experts"
    expert = 3 * spec.hidden * spec.moe.width
    idle = spec.moe.router.num_experts - spec.moe.router.top_k
    moe_layers = sum(layer.moe for layer in spec.layers)
    print(f"parameters: {total:,}; active per token: {total - moe_layers * idle * expert:,}")
    for layer, counts in enumerate(loads(rank, tokens, size), start=spec.num_layers - moe_layers):
        print(
            f"layer {layer}: max/mean {counts.max() / counts.mean():.2f}, "
            f"min/mean {counts.min() / counts.mean():.2f}"
        )


if __name__ == "__main__":
    main()
