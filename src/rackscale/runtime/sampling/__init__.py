"""From logits to tokens: parameters, filters, penalties, guides and log-probabilities.

What a request may ask for (`validate_sampling` checks it), and what its default leaves out:

    parameter           range                     default  effect
    temperature         finite, >= 0              1.0      logits divided by it; below 1e-5: greedy
    top_k               -1, 0 or >= 1             0        -1 and 0: all tokens
    top_p               0 < p <= 1                1.0      the nucleus that holds p
    min_p               0 <= p <= 1               0.0      a share of the greatest probability
    presence_penalty    -2 to 2                   0.0      subtracted once from an output token
    frequency_penalty   -2 to 2                   0.0      subtracted for each time in the output
    repetition_penalty  finite, > 0               1.0      divides what prompt or output holds
    logit_bias          token -> -100 to 100      {}       added to the token's logit
    seed                64 bits, signed           0        same seed, same text
    num_logprobs        0 to 20                   None     0: the drawn token's alone
    guide               100 kB, see `grammar`     None     the language of the output

The order of operations on a row's logits: bias; penalties (repetition, frequency, presence); stop
tokens held back by min_tokens; the guide's mask; then greedy, or temperature, top-k, top-p, min-p and
the draw. Bias and penalties are vLLM's, in vLLM's order (v1/sample/sampler.py); the filters are
transformers', in transformers' order (generation/utils.py). vLLM applies min-p before top-k, where
it then changes what the nucleus is a share of; transformers' order leaves top_p its meaning.

Greedy takes the lowest id among equals. A draw takes one uniform number that depends on (seed,
position) alone (`uniform`) and inverts the distribution over token ids (`draw`): so a request's text
depends neither on its batch nor on being moved. Log-probabilities are the model's own, of its logits
before anything above.

A row that can draw nothing ends: it gives its first stop token (its tokenizer's end token, or 0,
where it has none). That is so where all its logits are NaN or -inf, and where its guide is at a dead
end: the library ran out of its budget, or min_tokens holds back the only tokens left. A single NaN
counts as -inf.

`Sampler` needs torch and is loaded on demand; the rest is for processes without it.
"""

from typing import TYPE_CHECKING, Any

from rackscale.runtime.sampling.checker import GuideChecker
from rackscale.runtime.sampling.grammar import JSON_OBJECT
from rackscale.runtime.sampling.guides import check_guide
from rackscale.runtime.sampling.ranges import validate_sampling

if TYPE_CHECKING:
    from rackscale.runtime.sampling.sampler import Sampler

__all__ = ["JSON_OBJECT", "GuideChecker", "Sampler", "check_guide", "validate_sampling"]


def __getattr__(name: str) -> Any:
    """`Sampler` on demand: it loads torch, which a process at the edge does without."""
    if name == "Sampler":
        from rackscale.runtime.sampling.sampler import Sampler  # noqa: PLC0415 (loads torch)

        return Sampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
