"""Models whose weights stay packed: the same as decoded ones, and as indifferent to layouts and company."""

from pathlib import Path

import pytest
import torch
from golden_ranks import BLOCK, MAX_LEN, NATIVE_IS_BUILT, logits_by_pieces, make_rank, scatter_blocks
from packed_weights import packed, random_weight

from rackscale.checkpoint import open_checkpoint
from rackscale.checkpoint.codecs import Format
from rackscale.core import Request, Sampling, SpecError
from rackscale.runtime.kernels import Linear, choose
from rackscale.runtime.local import LocalOptions, open_local
from rackscale.runtime.model.weights import columns, rows
from rackscale.specs import ONE_RANK, PoolLayout, Role, Span

pytestmark = pytest.mark.skipif(not NATIVE_IS_BUILT, reason="weights stay packed in the native part alone")

GOLDEN = Path(__file__).parents[1] / "golden" / "nvfp4"
MODELS = ("tiny_qwen3_moe_nvfp4", "tiny_deepseek_v3_nvfp4")  # every linear layer, experts alone
IDS_RL = torch.randint(2, 100, (2, 24), generator=torch.Generator().manual_seed(5))


def logits(model, kernels="native", pieces=(24,), **options):
    rank = make_rank(open_checkpoint(GOLDEN / model, tokenizer_required=False), kernels, **options)
    scatter_blocks(rank, len(IDS_RL))
    return logits_by_pieces(rank, IDS_RL, list(pieces))


@pytest.mark.parametrize("model", MODELS)
def test_exact_products_are_those_of_decoded_weights(model):
    expected = logits(model, "reference")
    assert (logits(model, activations="fp32") - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("model", MODELS)
def test_a_quantised_checkpoint_is_multiplied_in_int8_unless_told_otherwise(model):
    assert torch.equal(logits(model), logits(model, activations="int8"))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("activations", "error"), [("bf16", 0.1), ("int8", 0.1), ("nvfp4", 0.4)])
def test_what_rounding_costs(model, activations, error):
    """Relative to the logits' size; random layers, whose experts flip easily, make much of it."""
    expected = logits(model, activations="fp32")
    assert (logits(model, activations=activations) - expected).norm() < error * expected.norm()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("activations", ["fp32", "bf16", "int8", "nvfp4"])
def test_chunks_change_no_bit(model, activations):
    whole = logits(model, activations=activations)
    assert torch.equal(logits(model, activations=activations, pieces=(7, 1, 15, 1)), whole)


def test_experts_are_quantised_while_they_are_loaded():
    packed = logits("tiny_deepseek_v3_nvfp4", activations="int8")
    assert torch.equal(logits("tiny_deepseek_v3_bf16", weights="nvfp4"), packed)


def test_quantising_while_loading_needs_kernels_that_pack():
    with pytest.raises(SpecError, match="--weights nvfp4 with reference kernels"):
        logits("tiny_deepseek_v3_bf16", "reference", weights="nvfp4")


def test_other_kernels_do_not_round_to_a_few_bits():
    with pytest.raises(SpecError, match="--activations int8"):
        logits("tiny_qwen3_moe_nvfp4", "reference", activations="int8")


def said(model, layout, **changes):
    options = LocalOptions(
        layout=layout,
        max_model_len=MAX_LEN,
        kv_gib=0.05,
        block_size=BLOCK,
        max_batched_tokens=16,
        max_running=3,
        tokenizer_required=False,
        **changes,
    )
    requests = [
        Request(
            id=f"r{number}",
            prompt=tuple((number * 31 + 7 * at) % 90 + 2 for at in range(length)),
            max_tokens=5 + number,
            sampling=Sampling(temperature=0.0, num_logprobs=0),
        )
        for number, length in enumerate((1, 19, 3, 30, 7))
    ]
    with open_local(GOLDEN / model, options) as local:
        done = local.driver.run(requests)
    return {name: (one.token_ids, [entry.logprob for entry in one.logprobs]) for name, one in done.items()}


APART = (PoolLayout(role=Role.PREFILL), PoolLayout(role=Role.DECODE, num_ranks=2))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("layout", [(PoolLayout(num_ranks=2),), (PoolLayout(num_ranks=4),), APART])
def test_layouts_change_no_bit(model, layout):
    assert said(model, layout) == said(model, ONE_RANK)


def test_members_of_a_team_take_whole_tiles():
    weight = random_weight(Format.NVFP4, 160, 192)
    layer = Linear(packed(weight.part), torch.randn(160))
    x_TH = torch.randn(5, 192)
    kernels = choose("native")
    whole = kernels.linear(x_TH, layer)
    some = kernels.linear(x_TH, columns(layer, Span(32, 64), Span(96, 160)))
    assert torch.equal(some, torch.cat((whole[:, 32:64], whole[:, 96:160]), 1))
    parts = [
        kernels.linear(x_TH[:, start:end].contiguous(), rows(layer, Span(start, end)))
        for start, end in ((0, 128), (128, 192))
    ]
    assert torch.allclose(sum(parts), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_members_of_a_team_cannot_share_a_block_of_inputs():
    with pytest.raises(SpecError, match=r"inputs 0 \.\. 32 of 64 cut a block"):
        said(MODELS[0], (PoolLayout(num_ranks=2, tp=2),))
