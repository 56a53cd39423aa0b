"""Prompts that no cache has seen, asked of a rack while things break, and what one rank says to them."""

import time

PROMPT = 320


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
        (length,) = {answer.json["usage"]["completion_tokens"] for answer in answers}
        outputs = self._alone(prompts, length)
        said = [answer.json["choices"][0]["text"] for answer in answers]
        assert said == [self._tokenizer.decode(output) for output in outputs]


def submit(rack, pool, prompts):
    """Futures of the answers."""
    body = {"max_tokens": rack.max_tokens, "temperature": 0, "ignore_eos": True}
    return [pool.submit(rack.complete, prompt=prompt, **body) for prompt in prompts]


def ask(rack, pool, prompts):
    """Futures of the answers; the rack is at work when this returns."""
    before = rack.metric("rackscale_output_tokens_total")
    futures = submit(rack, pool, prompts)
    deadline = time.monotonic() + 20
    while rack.metric("rackscale_output_tokens_total") == before:
        assert time.monotonic() < deadline, "nothing is said"
        time.sleep(0.02)
    assert not any(future.done() for future in futures)
    return futures


def answers_of(futures):
    return [future.result(timeout=60) for future in futures]
