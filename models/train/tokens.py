"""The tokenizer: byte-level BPE, one special token that ends a document and starts the next."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
VOCAB_SIZE = 2048


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A tokenizer of `VOCAB_SIZE` tokens; decode(encode(text)) == text for any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def stream(tokenizer: Tokenizer, path: Path, separator: str) -> torch.Tensor:
    """All documents of a file one after another, each behind the end token: int64 [tokens]."""
    end = tokenizer.token_to_id(END)
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(path.read_text().split(separator)):
        ids.append(end)
        ids += encoding.ids
    return torch.tensor(ids)
