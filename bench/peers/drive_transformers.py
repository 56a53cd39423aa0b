"""transformers in bf16, for one visit: `drive_transformers.py MODEL WORK`, prints JSON."""

import importlib.metadata
import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

LOW, HIGH = 100, 50000  # token ids drawn


@torch.inference_mode()
def decode(model: Any, batch: int, prompt: int, tokens: int) -> float:
    """Tokens per second, greedy."""
    out = model(input_ids=torch.randint(LOW, HIGH, (batch, prompt)), use_cache=True, logits_to_keep=1)
    cache, last = out.past_key_values, out.logits[:, -1:].argmax(-1)
    start = time.perf_counter()
    for _ in range(tokens):
        out = model(input_ids=last, past_key_values=cache, use_cache=True)
        last = out.logits[:, -1:].argmax(-1)
    return batch * tokens / (time.perf_counter() - start)


@torch.inference_mode()
def prefill(model: Any, length: int) -> float:
    """Tokens per second."""
    ids = torch.randint(LOW, HIGH, (1, length))
    start = time.perf_counter()
    model(input_ids=ids, use_cache=True, logits_to_keep=1)
    return length / (time.perf_counter() - start)


def main() -> None:
    path, work = sys.argv[1], json.loads(sys.argv[2])
    logging.disable_progress_bar()
    torch.set_num_threads(work["threads"])
    torch.manual_seed(time.time_ns())
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
    load_s = time.perf_counter() - start
    prefill(model, 32)
    decode(model, 1, work["prompt"], 2)
    visit = {
        "load_s": load_s,
        "prefill": {length: prefill(model, length) for length in work["prefill"]},
        "decode": {batch: decode(model, batch, work["prompt"], work["tokens"]) for batch in work["batches"]},
        "experts": str(getattr(model.config, "_experts_implementation", None)),
        "versions": {name: importlib.metadata.version(name) for name in ("transformers", "torch")},
    }
    print(json.dumps({"visit": visit}))


if __name__ == "__main__":
    main()
