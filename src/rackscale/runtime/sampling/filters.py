"""Which tokens may be drawn: top-k, then top-p, then min-p, as in transformers.

A token's fate follows from its value alone, so that no order among equals is needed:

    top-k   stays if fewer than k tokens have a greater logit
    top-p   stays if the tokens of greater probability hold less than p together, in what top-k left
    min-p   stays if its probability is at least min_p times the greatest

Equals at the edge stay together, as in vLLM's top-k. Probabilities are taken after the temperature.
Source for the order: transformers, generation/utils.py, _get_logits_processor (temperature, top_k,
top_p, min_p).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rackscale.core import IntColumn
from rackscale.runtime.sampling.rows import FilterColumns, FloatColumn

_TOPK_IS_SLOWER = 1024  # from so many values on, numpy's full sort beats torch's partial one


def keep_top_k(logits_NV: Tensor, top_k: IntColumn) -> Tensor:
    """The logits with -inf outside each row's top k. Rows with k = V are left as they are."""
    vocab_size = logits_NV.shape[1]
    limited = np.flatnonzero(top_k < vocab_size)
    if not len(limited):
        return logits_NV
    rows = torch.from_numpy(limited).to(logits_NV.device)
    ranks = torch.from_numpy(top_k[limited].astype(np.int64) - 1).to(logits_NV.device)
    part_PV = logits_NV if len(limited) == len(top_k) else logits_NV[rows]
    best_PK = _best(part_PV, int(top_k[limited].max()))
    edge_P1 = best_PK.gather(1, ranks[:, None])
    kept_PV = part_PV.masked_fill(part_PV < edge_P1, -torch.inf)
    if len(limited) == len(top_k):
        return kept_PV
    return logits_NV.index_copy(0, rows, kept_PV)


def keep_top_p(probs_NV: Tensor, top_p: FloatColumn) -> Tensor:
    """The probabilities with 0 outside each row's nucleus; not renormalised."""
    limited = np.flatnonzero(top_p < 1.0)
    if not len(limited):
        return probs_NV
    rows = torch.from_numpy(limited).to(probs_NV.device)
    share_P1 = torch.from_numpy(top_p[limited]).to(probs_NV.device)[:, None]
    part_PV = probs_NV if len(limited) == len(top_p) else probs_NV[rows]
    on_host = probs_NV.device.type == "cpu"
    edge_P1 = (nucleus_edge_by_row if on_host else nucleus_edge)(part_PV, share_P1)
    kept_PV = part_PV.masked_fill(part_PV < edge_P1, 0.0)
    if len(limited) == len(top_p):
        return kept_PV
    return probs_NV.index_copy(0, rows, kept_PV)


def keep_min_p(probs_NV: Tensor, min_p: FloatColumn) -> Tensor:
    """The probabilities with 0 where they are under min_p times their row's greatest."""
    if not min_p.any():
        return probs_NV
    share_N1 = torch.from_numpy(min_p).to(probs_NV.device)[:, None]
    edge_N1 = probs_NV.amax(-1, keepdim=True) * share_N1
    return probs_NV.masked_fill(probs_NV < edge_N1, 0.0)


def filtered_probs(logits_NV: Tensor, columns: FilterColumns) -> Tensor:
    """Each row's weights over the tokens that stay: proportional to its probabilities, 0 elsewhere.

    logits_NV: fp32. A row without a finite logit, or with a NaN, gives NaN or zeros only.
    """
    temperature_N1 = torch.from_numpy(columns.temperature).to(logits_NV.device)[:, None]
    scaled_NV = keep_top_k(logits_NV / temperature_N1, columns.top_k)
    probs_NV = keep_top_p(scaled_NV.softmax(-1), columns.top_p)
    return keep_min_p(probs_NV, columns.min_p)


def nucleus_edge(probs_PV: Tensor, share_P1: Tensor) -> Tensor:
    """The least probability in each row's nucleus, [P, 1].

    Tokens under (1 - p) / V hold less than 1 - p together, so the nucleus lies above that: only
    those are sorted.
    """
    num_candidates = (probs_PV >= (1.0 - share_P1) / probs_PV.shape[1]).sum(-1)
    best_PK = _best(probs_PV, max(int(num_candidates.max()), 1))
    above_PK = best_PK.cumsum(-1, dtype=torch.float64) - best_PK
    num_kept_P1 = (above_PK < share_P1).sum(-1, keepdim=True)
    # Equal probabilities stand together: the last kept one's value draws the line for all.
    return best_PK.gather(1, (num_kept_P1 - 1).clamp_(min=0))


def nucleus_edge_by_row(probs_PV: Tensor, share_P1: Tensor) -> Tensor:
    """What `nucleus_edge` gives, row by row in numpy: on a CPU, sorting each row's own few
    candidates takes a fifth of the time of a batched top-k.
    """
    edges = [
        _edge_of_row(probs_V, float(share))
        for probs_V, share in zip(probs_PV.numpy(), share_P1[:, 0].tolist(), strict=True)
    ]
    return torch.tensor(edges, dtype=probs_PV.dtype)[:, None]


def _edge_of_row(probs_V: npt.NDArray[np.float32], share: float) -> float:
    candidates = probs_V[probs_V >= (1.0 - share) / len(probs_V)]
    if not len(candidates):  # NaN: the draw will tell
        return 0.0
    candidates[::-1].sort()
    running = candidates.cumsum(dtype=np.float64)
    num_kept = int(np.searchsorted(running - candidates, share))
    return float(candidates[max(num_kept - 1, 0)])


def _best(values_PV: Tensor, count: int) -> Tensor:
    """The `count` greatest values of each row, greatest first."""
    if count >= _TOPK_IS_SLOWER and values_PV.device.type == "cpu":
        ascending = np.sort(values_PV.numpy(), axis=-1)
        return torch.from_numpy(ascending[:, ::-1][:, :count].copy())
    return values_PV.topk(count, dim=-1).values
