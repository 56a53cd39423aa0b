"""What one rank says to prompts that are too long to be prefilled where they are decoded."""

from concurrent.futures import ThreadPoolExecutor

import namespaces
import pytest
from questions_of_hosts import Questions
from tokenizers import Tokenizer

from rackscale.core import Request, RequestId, Sampling
from rackscale.runtime.local import LocalOptions, open_local


@pytest.fixture(scope="session")
def questions(bundled_model):
    tokenizer = Tokenizer.from_file(str(bundled_model / "tokenizer.json"))
    text = (bundled_model.parent / "heldout.txt").read_text()
    return Questions(
        tokenizer, tokenizer.encode(text[:60_000], add_special_tokens=False).ids, alone(bundled_model)
    )


def alone(model):
    """Gives a function from prompts to greedy outputs."""

    def answers(prompts, max_tokens):
        options = LocalOptions(block_size=16, max_batched_tokens=512, max_running=16)
        requests = [
            Request(
                id=RequestId(str(number)),
                prompt=tuple(prompt),
                max_tokens=max_tokens,
                sampling=Sampling(temperature=0.0),
            )
            for number, prompt in enumerate(prompts)
        ]
        with open_local(model, options) as local:
            done = local.driver.run(requests)
        return [done[request.id].token_ids for request in requests]

    return answers


@pytest.fixture
def cable():
    reason = namespaces.why_not()
    if reason is not None:
        pytest.skip(reason)
    with namespaces.two_hosts() as plugged:
        yield plugged


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads
