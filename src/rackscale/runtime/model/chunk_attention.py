"""Attention of a chunk of a prefill to its row's tokens, up to each token itself.

Axes: T tokens of the chunk, L of the row so far, A heads, G heads of keys, N their width, V the values'.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rackscale.runtime.batch import Chunk
from rackscale.runtime.kernels.reference import softmax_with_sinks


def attend(
    query_ATN: Tensor,
    key_GLN: Tensor,
    value_GLV: Tensor,
    chunk: Chunk,
    *,
    scale: float,
    window: int | None = None,
    sinks_A: Tensor | None = None,
) -> Tensor:
    """[T, A, V]. window: how many of the last tokens are seen. sinks: one more logit a head."""
    query, key, value = query_ATN, key_GLN, value_GLV
    if len(query) != len(key):
        key, value = (part.repeat_interleave(len(query) // len(key), dim=0) for part in (key, value))
    if sinks_A is not None:
        scores = (query @ key.mT) * scale
        scores = scores.masked_fill(~_visible(chunk, window, scores.device), -torch.inf)
        weights = softmax_with_sinks(scores.transpose(0, 1), sinks_A).transpose(0, 1)
        return (weights @ value).transpose(0, 1)
    causal = chunk.position == 0 and window is None
    # Torch's fused kernel wants values as wide as keys, and a batch in front.
    width = max(key.shape[-1], value.shape[-1])
    query, key, value = (_widened(part, width) for part in (query, key, value))
    out = F.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=None if causal else _visible(chunk, window, query.device),
        is_causal=causal,
        scale=scale,
    )
    return out[0, ..., : value_GLV.shape[-1]].transpose(0, 1)


def _widened(part: Tensor, width: int) -> Tensor:
    """Zeros at the end of the last axis, where it is shorter."""
    short = width - part.shape[-1]
    return F.pad(part, (0, short)) if short else part


def _visible(chunk: Chunk, window: int | None, device: torch.device) -> Tensor:
    """Which of the row's tokens each token of the chunk sees, [T, L]."""
    queries = torch.arange(chunk.position, len(chunk.context), device=device)[:, None]
    keys = torch.arange(len(chunk.context), device=device)
    visible = keys <= queries
    return visible if window is None else visible & (keys > queries - window)
