"""A model that others trained, of a real size: the same tokens and logits as transformers gives."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

from smollm2 import UnavailableError, smollm2_folder  # noqa: E402 (behind the skips)

from rackscale.checkpoint import Checkpoint  # noqa: E402
from rackscale.core import Request, RequestId, Sampling, TokenId  # noqa: E402
from rackscale.engine import build  # noqa: E402
from rackscale.runtime.batch import make_batch  # noqa: E402
from rackscale.runtime.inline import InlineDriver, OneRank  # noqa: E402
from rackscale.runtime.local import LocalOptions, open_rank  # noqa: E402
from rackscale.runtime.rank import Rank  # noqa: E402
from rackscale.runtime.score import score  # noqa: E402

pytestmark = pytest.mark.timeout(300)  # the first run downloads and converts
PROMPT = "The capital of France is"
STORY = "Once upon a time, in a village by the sea, there lived an old clockmaker who had 12 clocks and"
NEW = 16
LEN = 416  # what a row holds


class Local(NamedTuple):
    checkpoint: Checkpoint
    rank: Rank
    driver: InlineDriver


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return smollm2_folder()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def local(folder: Path) -> Local:
    torch.set_num_threads(1)
    options = LocalOptions(max_model_len=LEN, block_size=16, max_batched_tokens=64, max_running=2)
    checkpoint, deployment, rank = open_rank(folder, options)
    driver = InlineDriver(build(deployment), OneRank(rank), time.monotonic)
    return Local(checkpoint, rank, driver)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def tokens_of(local: Local, text: str) -> list[TokenId]:
    assert local.checkpoint.tokenizer is not None
    return local.checkpoint.tokenizer.encode(text)


def greedy(local: Local, *prompts: str) -> list[list[TokenId]]:
    """What this project writes after the prompts, all at once."""
    done = local.driver.run(
        Request(
            id=RequestId(prompt),
            prompt=tuple(tokens_of(local, prompt)),
            max_tokens=NEW,
            sampling=Sampling(temperature=0.0),
        )
        for prompt in prompts
    )
    return [done[RequestId(prompt)].token_ids for prompt in prompts]


def test_it_knows_what_it_was_taught(local: Local) -> None:
    assert local.checkpoint.tokenizer is not None
    text = local.checkpoint.tokenizer.decode(greedy(local, PROMPT)[0])
    assert text.startswith(" Paris")


def test_the_conversion_is_right(local: Local) -> None:
    """A well-known text is likely: 2.9 nats a token, and 5.4 where the rotary rows are left as GGUF has
    them, which a short prompt does not show."""
    text = (Path(__file__).parents[2] / "LICENSE").read_text()[1000:3000]
    tokens = tokens_of(local, text)
    assert score(local.rank, tokens, size=LEN) / len(tokens) < 3.5


def test_tokens_are_those_of_transformers(local: Local, folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in (PROMPT, STORY, "naïve 東京 3.14159\n\n\tdef f(x): <|im_end|>"):
        assert tokens_of(local, text) == tokenizer(text)["input_ids"]


def test_chat_is_that_of_transformers(local: Local, folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    assert local.checkpoint.tokenizer is not None
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert local.checkpoint.tokenizer.render_chat(messages) == expected


def test_greedy_tokens_are_those_of_transformers(local: Local, theirs: Any) -> None:
    expected = []
    for prompt in (PROMPT, STORY):
        ids = torch.tensor([tokens_of(local, prompt)])
        with torch.inference_mode():
            whole = theirs.generate(ids, max_new_tokens=NEW, do_sample=False, eos_token_id=-1)
        expected.append(whole[0, ids.shape[1] :].tolist())
    assert greedy(local, PROMPT, STORY) == expected


def test_logits_are_those_of_transformers(local: Local, theirs: Any) -> None:
    ids = np.array(tokens_of(local, STORY), dtype=np.int32)
    zero, count = np.zeros(1, dtype=np.int32), np.array([len(ids)], dtype=np.int32)
    local.rank.cache.table[0] = np.arange(local.rank.cache.table.shape[1])
    with torch.inference_mode():
        batch = make_batch(local.rank.cache, ids, zero, zero, count, None, local.rank.device)
        ours_TV = local.rank.model(batch, local.rank.cache)
        theirs_TV = theirs(torch.from_numpy(ids)[None].long()).logits[0]
    error = (ours_TV - theirs_TV).abs().max() / theirs_TV.abs().max()
    assert error < 1e-4
