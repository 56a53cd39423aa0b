"""Train the bundled model, from the two texts to a Hugging Face folder.

    python models/train/corpus.py DEB_FOLDER DATA        # see there for the packages
    python models/train/train.py DATA models/austen-moe --minutes 45

Reproducible but for the clock: the schedule is laid over a number of steps which --steps fixes, and
which --minutes otherwise derives from the speed of the first steps.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import DOCUMENT_BREAK
from export import export
from model import Model, Moe, Shape
from muon import Muon
from tokens import stream, train_tokenizer
from torch import Tensor

TOKENS_PER_STEP = 4096
BALANCE_RATE = 0.004  # the bias rule's step at first; it falls with the learning rate
IMBALANCE_WEIGHT = 0.003  # of the auxiliary loss, which only helps the bias rule along
OTHER_SHARE = 0.2  # of the first steps' tokens, falling to none at OTHER_UNTIL
OTHER_UNTIL = 0.4


@dataclass(frozen=True)
class Phase:
    """Up to which share of the steps sequences have this length."""

    until: float
    length: int


PHASES = (Phase(0.55, 256), Phase(0.85, 512), Phase(1.0, 1024))


def batches(austen: Tensor, other: Tensor, done: Iterator[float], seed: int) -> Iterator[Tensor]:
    """Windows [B, S + 1] at random places; of other prose too while the training is young."""
    generator = torch.Generator().manual_seed(seed)
    for share in done:
        length = next(phase.length for phase in PHASES if share <= phase.until)
        rows = TOKENS_PER_STEP // length
        foreign = OTHER_SHARE * max(0.0, 1 - share / OTHER_UNTIL)
        num_other = int(rows * foreign + torch.rand((), generator=generator).item())
        windows = []
        for row in range(rows):
            text = other if row < num_other else austen
            start = int(torch.randint(len(text) - length - 1, (), generator=generator))
            windows.append(text[start : start + length + 1])
        yield torch.stack(windows)


def optimisers(model: Model) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside layers, AdamW for embedding, routers and norms."""
    matrices, others, embedding = [], [], []
    for name, param in model.named_parameters():
        if "embed" in name:
            embedding.append(param)
        elif param.ndim >= 2 and "router" not in name:
            matrices.append(param)
        else:
            others.append(param)
    adam = torch.optim.AdamW(
        [{"params": embedding, "lr": 2e-3}, {"params": others, "lr": 1e-3}],
        betas=(0.9, 0.95), weight_decay=0.01,
    )  # fmt: skip
    return [Muon(matrices, lr=0.008, decay=0.1), adam]


def learning_rate(share: float) -> float:
    """Warm up over 2 %, then fall in a line to zero."""
    return min(share / 0.02, (1 - share) / 0.98)


def balance(layers: list[Moe], share: float) -> None:
    """DeepSeek's rule: a bias rises where an expert got too little, and falls where too much."""
    rate = BALANCE_RATE * learning_rate(share)
    for layer in layers:
        layer.correction_E += rate * torch.sign(layer.load_E.mean() - layer.load_E)


@torch.no_grad()
def bits_per_byte(model: Model, ids: Tensor, num_bytes: int, window: int) -> float:
    """Bits per byte of a text, each token seeing at least half a window before it."""
    model.eval()
    nats, start = 0.0, 0
    scored = 1
    while scored < len(ids):
        piece = ids[start : start + window]
        nll = F.cross_entropy(model(piece[None, :-1])[0], piece[1:], reduction="none")
        nats += nll[scored - start - 1 :].sum().item()
        scored = start + len(piece)
        start = scored - window // 2
    model.train()
    return nats / math.log(2) / num_bytes


def progress(start_s: float, minutes: float, steps: int | None) -> Iterator[float]:
    """The share of the training that is done, until it is 1."""
    step = 0
    while True:
        share = step / steps if steps else (time.monotonic() - start_s) / (60 * minutes)
        if share >= 1:
            return
        yield share
        step += 1


def main() -> None:
    """Train, say how it goes, and export at the end and every tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    text = (options.data / "train.txt").read_text()
    tokenizer = train_tokenizer(text.split(DOCUMENT_BREAK))
    austen = stream(tokenizer, options.data / "train.txt", DOCUMENT_BREAK)
    other = stream(tokenizer, options.data / "other.txt", DOCUMENT_BREAK)
    held = stream(tokenizer, options.data / "heldout.txt", DOCUMENT_BREAK)
    held_bytes = (options.data / "heldout.txt").stat().st_size
    model = Model(Shape(), options.dropout)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(austen):,} tokens")
    optims = optimisers(model)
    start_s, step, next_report = time.monotonic(), 0, 0.02
    rates = [[group["lr"] for group in optim.param_groups] for optim in optims]
    shares = progress(start_s, options.minutes, options.steps)
    pairs = ((share, share) for share in shares)
    current = [0.0]

    def noted() -> Iterator[float]:
        for share, _ in pairs:
            current[0] = share
            yield share

    for window in batches(austen, other, noted(), options.seed):
        share, step = current[0], step + 1
        for optim, base in zip(optims, rates, strict=True):
            for group, rate in zip(optim.param_groups, base, strict=True):
                group["lr"] = rate * learning_rate(share)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(window[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())
        imbalance = sum(moe.imbalance() for moe in model.moe_layers())
        (loss + IMBALANCE_WEIGHT * imbalance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        balance(model.moe_layers(), share)
        if share >= next_report:
            next_report += 0.05
            bits = bits_per_byte(model, held[:20000], int(held_bytes * 20000 / len(held)), 512)
            skew = max(float(m.load_E.max() / m.load_E.mean()) for m in model.moe_layers())
            rate = step * TOKENS_PER_STEP / (time.monotonic() - start_s)
            print(f"{share:.2f} step {step} loss {loss.item():.3f} held-out {bits:.4f} "
                  f"bits/byte, load max/mean {skew:.2f}, {rate:.0f} tokens/s", flush=True)  # fmt: skip
            export(model, tokenizer, options.out)
    export(model, tokenizer, options.out)
    bits = bits_per_byte(model, held, held_bytes, 1024)
    print(f"held-out {bits:.4f} bits/byte, {time.process_time():.0f} CPU seconds, {step} steps")


if __name__ == "__main__":
    main()
