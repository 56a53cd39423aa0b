"""Prompts that no cache has seen, asked of a rack while things break, and what one rank says to them."""

import time

from live_server import NAME

PROMPT = 320
MAX_TOKENS = 160


class Questions:
    """alone: from prompts to outputs."""

    def __init__(self, tokenizer, tokens, alone):
        self._tokenizer, self._tokens, self._alone = tokenizer, tokens, alone
        self._next = 0

    def prompts(self, count):
        starts = range(self._next, self._next + count)
        self._next += count
        return [self._tokens[start * PROMPT : (start + 1) * PROMPT] for start in starts]

    def check(self, prompts, answers):
        """As one rank has it."""
        outputs = self._alone(prompts, MAX_TOKENS)
        assert [answer.status for answer in answers] == [200] * len(prompts)
        said = [answer.json["choices"][0]["text"] for answer in answers]
        assert said == [self._tokenizer.decode(output) for output in outputs]


def ask(rack, pool, prompts):
    """Futures of the answers; the rack is at work when this returns."""
    before = rack.metric("rackscale_output_tokens_total")
    futures = [
        pool.submit(
            rack.post,
            "/v1/completions",
            {
                "model": NAME,
                "prompt": prompt,
                "max_tokens": MAX_TOKENS,
                "temperature": 0,
                "ignore_eos": True,
            },
        )
        for prompt in prompts
    ]
    deadline = time.monotonic() + 20
    while rack.metric("rackscale_output_tokens_total") == before:
        assert time.monotonic() < deadline, "nothing is said"
        time.sleep(0.02)
    return futures


def answers_of(futures):
    return [future.result(timeout=60) for future in futures]
