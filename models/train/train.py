"""Train the bundled model, from the texts to a Hugging Face folder.

    python models/train/corpus.py DEB_FOLDER DATA        # see there for the packages
    python models/train/train.py DATA models/austen-moe --minutes 60

The schedule runs over --minutes of wall time, or over --steps for a run that can be repeated to the bit. A
run that was cut short goes on with --init FOLDER --share FROM TO: the part of the schedule that is left.
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
from export import export, restore
from model import Model, Moe, Shape
from muon import Muon
from tokenizers import Tokenizer
from tokens import stream, train_tokenizer
from torch import Tensor

TOKENS_PER_STEP = 4096
BALANCE_RATE = 0.003  # the bias rule's step at first; it falls with the learning rate
IMBALANCE_WEIGHT = 0.003  # of the auxiliary loss, which only helps the bias rule along
OTHER_SHARE = 0.15  # of the first steps' tokens, falling to none at OTHER_UNTIL
OTHER_UNTIL = 0.25
REPORTS = 16
PROBE_TOKENS = 20000  # of the held-out text, for the reports on the way


@dataclass(frozen=True)
class Phase:
    """Up to which share of the schedule sequences have this length."""

    until: float
    length: int


PHASES = (Phase(0.55, 256), Phase(0.85, 512), Phase(1.0, 1024))


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Token streams: what is learnt, other prose for the beginning, and what is never learnt."""

    austen: Tensor
    other: Tensor
    held: Tensor
    held_bytes: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """From which share to which of the whole, over minutes or over a number of steps."""

    first: float
    last: float
    minutes: float
    steps: int | None

    def shares(self) -> Iterator[float]:
        """Where each step stands, until the schedule is over."""
        start_s, step = time.monotonic(), 0
        while True:
            done = step / self.steps if self.steps else (time.monotonic() - start_s) / (60 * self.minutes)
            if done >= 1:
                return
            yield self.first + done * (self.last - self.first)
            step += 1


def read_texts(data: Path, tokenizer: Tokenizer) -> Texts:
    """The files that corpus.py wrote, as tokens."""
    return Texts(
        austen=stream(tokenizer, data / "train.txt", DOCUMENT_BREAK),
        other=stream(tokenizer, data / "other.txt", DOCUMENT_BREAK),
        held=stream(tokenizer, data / "heldout.txt", DOCUMENT_BREAK),
        held_bytes=(data / "heldout.txt").stat().st_size,
    )


def length_at(share: float) -> int:
    """How long sequences are at this point. Positions beyond it mean nothing to the model yet."""
    return next(phase.length for phase in PHASES if share <= phase.until)


def draw_batch(texts: Texts, share: float, generator: torch.Generator) -> Tensor:
    """Windows [B, S + 1] at random places; of other prose too while the training is young."""
    length = length_at(share)
    rows = TOKENS_PER_STEP // length
    foreign = OTHER_SHARE * max(0.0, 1 - share / OTHER_UNTIL)
    num_other = int(rows * foreign + torch.rand((), generator=generator).item())
    windows = []
    for row in range(rows):
        text = texts.other if row < num_other else texts.austen
        start = int(torch.randint(len(text) - length - 1, (), generator=generator))
        windows.append(text[start : start + length + 1])
    return torch.stack(windows)


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
        betas=(0.9, 0.95),
        weight_decay=0.01,
    )
    return [Muon(matrices, lr=0.012, decay=0.05), adam]


def learning_rate(share: float) -> float:
    """A factor: up over 2 % of the schedule, then down in a line to zero."""
    return min(share / 0.02, (1 - share) / 0.98)


def balance(layers: list[Moe], share: float) -> None:
    """DeepSeek's rule: a bias rises where an expert got too little, and falls where too much."""
    rate = BALANCE_RATE * learning_rate(share)
    for layer in layers:
        layer.correction_E += rate * torch.sign(layer.load_E.mean() - layer.load_E)


def loss_of(model: Model, window: Tensor) -> tuple[Tensor, Tensor]:
    """Nats per token, and what is to be minimised."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(window[:, :-1])
    nats = F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())
    imbalance = torch.stack([moe.imbalance() for moe in model.moe_layers()]).sum()
    return nats, nats + IMBALANCE_WEIGHT * imbalance


@torch.no_grad()
def bits_per_byte(model: Model, ids: Tensor, num_bytes: float, window: int) -> float:
    """Bits per byte of a text, each token seeing at least half a window before it."""
    model.eval()
    nats, start, scored = 0.0, 0, 1
    while scored < len(ids):
        piece = ids[start : start + window]
        nll = F.cross_entropy(model(piece[None, :-1])[0], piece[1:], reduction="none")
        nats += nll[scored - start - 1 :].sum().item()
        scored = start + len(piece)
        start = scored - window // 2
    model.train()
    return nats / math.log(2) / num_bytes


def probe(model: Model, texts: Texts, window: int) -> str:
    """How it goes: bits per byte of a part of the held-out text, and the balance of the last batch."""
    held_bytes = texts.held_bytes * PROBE_TOKENS / len(texts.held)
    bits = bits_per_byte(model, texts.held[:PROBE_TOKENS], held_bytes, window)
    skew = max(float(moe.load_E.max() / moe.load_E.mean()) for moe in model.moe_layers())
    return f"held-out {bits:.4f} bits/byte, load max/mean {skew:.2f}"


def train(model: Model, texts: Texts, schedule: Schedule, seed: int) -> Iterator[tuple[float, float]]:
    """Train, and give after every step its share of the schedule and its nats per token."""
    generator = torch.Generator().manual_seed(seed)
    optims = optimisers(model)
    rates = [[group["lr"] for group in optim.param_groups] for optim in optims]
    for share in schedule.shares():
        for optim, base in zip(optims, rates, strict=True):
            for group, rate in zip(optim.param_groups, base, strict=True):
                group["lr"] = rate * learning_rate(share)
        nats, loss = loss_of(model, draw_batch(texts, share, generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        balance(model.moe_layers(), share)
        yield share, nats.item()


def main() -> None:
    """Train, say how it goes, and export on the way and at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--init", type=Path, help="an exported folder to go on from")
    parser.add_argument("--share", type=float, nargs=2, default=(0.0, 1.0), help="of the schedule")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    tokenizer = train_tokenizer((options.data / "train.txt").read_text().split(DOCUMENT_BREAK))
    texts = read_texts(options.data, tokenizer)
    model = Model(Shape(), options.dropout)
    if options.init:
        restore(model, options.init)
    first, last = options.share
    schedule = Schedule(first=first, last=last, minutes=options.minutes, steps=options.steps)
    next_report = first
    for step, (share, nats) in enumerate(train(model, texts, schedule, options.seed)):
        if share >= next_report:
            next_report += (last - first) / REPORTS
            print(
                f"{share:.2f} step {step} loss {nats:.3f} {probe(model, texts, length_at(share))}", flush=True
            )
            export(model, tokenizer, options.out)
    export(model, tokenizer, options.out)
    bits = bits_per_byte(model, texts.held, texts.held_bytes, model.s.max_position_embeddings)
    print(f"held-out {bits:.4f} bits/byte, {time.process_time():.0f} CPU seconds")


if __name__ == "__main__":
    main()
