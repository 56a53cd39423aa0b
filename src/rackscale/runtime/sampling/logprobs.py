"""Log-probabilities of what the model itself said: log-softmax of its logits before any bias,
penalty, mask, temperature or filter (vLLM's `raw_logprobs`).
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from rackscale.core import IntColumn, TokenId
from rackscale.runtime.answer import TokenLogprobs
from rackscale.runtime.sampling.rows import Indices

# JSON has no infinity. Source: the OpenAI API reference, "-9999.0 is used to signify that the token
# is very unlikely".
FLOOR: Final = -9999.0


def token_logprobs(
    logits_NV: Tensor, tokens: IntColumn, where: Indices, num_top: IntColumn
) -> tuple[TokenLogprobs, ...]:
    """The log-probability of tokens[i], and of the best tokens, for each i in `where`.

    num_top: how many best ones, in parallel to `where`; equals are in the order of their ids.
    A token that the model ruled out, or a NaN, gives `FLOOR`.
    """
    index_L = torch.from_numpy(where.astype(np.int64)).to(logits_NV.device)
    drawn_L1 = torch.from_numpy(tokens[where].astype(np.int64)).to(logits_NV.device)[:, None]
    logits_LV = logits_NV[index_L].nan_to_num_(nan=-torch.inf)
    logprobs_LV = logits_LV.log_softmax(-1).nan_to_num_(nan=FLOOR).clamp_(min=FLOOR)
    drawn: list[float] = logprobs_LV.gather(1, drawn_L1)[:, 0].tolist()
    values, ids = logprobs_LV.topk(min(int(num_top.max()), logits_NV.shape[1]), dim=-1)
    return tuple(
        TokenLogprobs(sample=int(sample), logprob=logprob, top=_best(top, best, int(count)))
        for sample, logprob, top, best, count in zip(
            where, drawn, values.tolist(), ids.tolist(), num_top, strict=True
        )
    )


def _best(values: list[float], ids: list[int], count: int) -> tuple[tuple[TokenId, float], ...]:
    pairs = sorted(zip(ids, values, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple((TokenId(token), value) for token, value in pairs[:count])
