"""A tiny byte-level tokenizer, and a toy model whose logits follow from the sequence alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rackscale.core import IntColumn, Request, RequestId, Sampling, TokenId, column
from rackscale.runtime.sampling import Sampler

END = TokenId(0)
VOCAB = 320  # wider than the tokenizer: the last ids have no text

LogitsOf = Callable[[list[int]], torch.Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = '{"name": "Emma", "tags": ["a"], "age": 21} true false null yes no maybe, a single man'
    tokenizer.train_from_iterator([text] * 8, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_path))


@pytest.fixture
def make_sampler(tokenizer_path: Path) -> Callable[..., Sampler]:
    def make(*, vocab_size: int = VOCAB, max_running: int = 16) -> Sampler:
        return Sampler(vocab_size=vocab_size, max_running=max_running, tokenizer_path=tokenizer_path)

    return make


@pytest.fixture
def make_request() -> Callable[..., Request]:
    def make(
        *,
        prompt: tuple[int, ...] = (5, 6, 7),
        min_tokens: int = 0,
        stops: tuple[int, ...] = (END,),
        **sampling: object,
    ) -> Request:
        return Request(
            id=RequestId("r"),
            prompt=tuple(map(TokenId, prompt)),
            max_tokens=1000,
            min_tokens=min_tokens,
            stop_token_ids=tuple(map(TokenId, stops)),
            sampling=Sampling(**sampling),
        )

    return make


@pytest.fixture(scope="session")
def toy_logits() -> LogitsOf:
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(1)) * 2.0

    def logits(sequence: list[int]) -> torch.Tensor:
        return table[sequence[-1]] + table[sequence[-2]] * 0.5 + len(sequence) % 7 * 0.01

    return logits


class Sequences:
    """Several requests drawn together, each row fed its own sequence's logits."""

    def __init__(self, sampler: Sampler, logits_of: LogitsOf) -> None:
        self._sampler = sampler
        self._logits_of = logits_of
        self.tokens: dict[int, list[int]] = {}

    def seat(self, row: int, request: Request, emitted: tuple[int, ...] = ()) -> None:
        self._sampler.seat(row, request, tuple(map(TokenId, emitted)))
        self.tokens[row] = [*request.prompt, *emitted]

    def step(self, rows: list[int]) -> tuple[list[int], tuple[object, ...]]:
        logits = torch.stack([self._logits_of(self.tokens[row]) for row in rows])
        positions: IntColumn = column(len(self.tokens[row]) for row in rows)
        tokens, logprobs = self._sampler.sample(logits, column(rows), positions)
        assert tokens.dtype == torch.int32
        for row, token in zip(rows, tokens.tolist(), strict=True):
            self.tokens[row].append(token)
        return tokens.tolist(), logprobs

    def run(self, rows: list[int], steps: int) -> dict[int, list[int]]:
        for _ in range(steps):
            self.step(rows)
        return {row: self.tokens[row] for row in rows}


@pytest.fixture
def sequences(make_sampler: Callable[..., Sampler], toy_logits: LogitsOf) -> Callable[[], Sequences]:
    return lambda: Sequences(make_sampler(), toy_logits)


@pytest.fixture
def sample_one(make_sampler: Callable[..., Sampler]) -> Callable[..., int]:
    """The token that one seated request draws from the logits given, at its first position."""

    def sample(request: Request, logits: list[float] | torch.Tensor, *, position: int = 3) -> int:
        logits_1V = torch.as_tensor(logits, dtype=torch.float32)[None]
        sampler = make_sampler(vocab_size=logits_1V.shape[1], max_running=1)
        sampler.seat(0, request)
        tokens, _ = sampler.sample(logits_1V, np.zeros(1, np.int32), column([position]))
        return int(tokens[0])

    return sample
