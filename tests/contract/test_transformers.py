"""Random models of every family, written by transformers and run by both."""

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

from golden_ranks import KERNELS, logits_by_pieces, make_rank  # noqa: E402
from random_configs import FAMILIES, VOCAB, random_config  # noqa: E402

from rackscale.checkpoint import open_checkpoint  # noqa: E402
from rackscale.core import Request, Sampling  # noqa: E402
from rackscale.engine import build  # noqa: E402
from rackscale.runtime.inline import InlineDriver, OneRank  # noqa: E402
from rackscale.runtime.score import score  # noqa: E402
from rackscale.specs import lay_out  # noqa: E402

STD = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "initializer_range": 0.15,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "original_max_position_embeddings": 32,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
GQA = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
MLA = {"kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}


def deepseek(**changes):
    return transformers.DeepseekV3Config(
        **{
            **STD,
            **MLA,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "q_lora_rank": None,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "n_shared_experts": 1,
            "moe_intermediate_size": 20,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "rope_parameters": DEFAULT,
            **changes,
        }
    )


def qwen3(**changes):
    return transformers.Qwen3MoeConfig(
        **{
            **STD,
            **GQA,
            "num_hidden_layers": 2,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "rope_parameters": DEFAULT,
            **changes,
        }
    )


def olmoe(**changes):
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2}
    return transformers.OlmoeConfig(
        **{**STD, **heads, "num_experts": 6, "num_experts_per_tok": 2, "rope_parameters": DEFAULT, **changes}
    )


def mixtral(**changes):
    return transformers.MixtralConfig(
        **{
            **STD,
            **GQA,
            "num_hidden_layers": 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": None,
            "rope_parameters": DEFAULT,
            **changes,
        }
    )


def gpt_oss(**changes):
    return transformers.GptOssConfig(
        **{
            **STD,
            **GQA,
            "num_hidden_layers": 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 6,
            "rope_parameters": {**YARN, "truncate": False},
            **changes,
        }
    )


def llama(**changes):
    return transformers.LlamaConfig(
        **{**STD, **GQA, "hidden_size": 36, "num_hidden_layers": 2, "rope_parameters": DEFAULT, **changes}
    )


CASES = {
    "deepseek": deepseek(),
    "deepseek-q-lora": deepseek(
        q_lora_rank=14, rope_parameters={**YARN, "mscale": 0.7, "mscale_all_dim": 0.9}
    ),
    "deepseek-groups": deepseek(n_group=4, topk_group=2, routed_scaling_factor=2.5),
    "deepseek-two-shared": deepseek(n_shared_experts=2, norm_topk_prob=False),
    "deepseek-tied-all-moe": deepseek(tie_word_embeddings=True, first_k_dense_replace=0),
    "deepseek-halves": deepseek(rope_interleave=False),
    "deepseek-bias": deepseek(attention_bias=True, q_lora_rank=14),
    "qwen3": qwen3(norm_topk_prob=True),
    "qwen3-not-renormalised": qwen3(norm_topk_prob=False, attention_bias=True),
    "qwen3-dense-layers": qwen3(decoder_sparse_step=2, num_hidden_layers=3),
    "qwen3-mlp-only": qwen3(mlp_only_layers=[0], rope_parameters=LINEAR),
    "olmoe": olmoe(),
    "olmoe-clipped": olmoe(clip_qkv=0.4, norm_topk_prob=True),
    "mixtral": mixtral(),
    "mixtral-window": mixtral(sliding_window=5),
    "gpt-oss": gpt_oss(),
    "gpt-oss-full": gpt_oss(layer_types=["full_attention"] * 2),
    "llama": llama(rope_parameters=LLAMA3),
    "llama-tied-bias": llama(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
}
PROMPT, NEW, BLOCK = 20, 8, 4


def random_model(config, seed):
    torch.manual_seed(seed)
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = transformers.AutoModelForCausalLM.from_config(config, **eager).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" not in name:  # nothing keeps a value that hides a mistake, as a norm of 1 does
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)
    return model


@pytest.fixture(params=sorted(CASES), scope="module")
def both(request, tmp_path_factory):
    model = random_model(CASES[request.param], seed=sum(map(ord, request.param)))
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, open_checkpoint(folder, tokenizer_required=False)


def rank_and_driver(checkpoint, kernels, budget):
    torch.set_num_threads(1)
    deployment = lay_out(
        checkpoint.spec,
        name="m",
        max_model_len=64,
        block_size=BLOCK,
        max_batched_tokens=budget,
        max_running=4,
    )
    rank = make_rank(
        checkpoint, kernels, num_blocks=deployment.groups[0].num_blocks, block_size=BLOCK, max_model_len=64
    )
    return rank, InlineDriver(build(deployment), OneRank(rank), lambda: 0.0)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("budget", [6, 64])
def test_greedy_tokens(both, kernels, budget):
    model, checkpoint = both
    ids = torch.randint(2, 96, (2, PROMPT), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = ids
        for _ in range(NEW):
            expected = torch.cat((expected, model(expected).logits[:, -1:].argmax(-1)), 1)
    _, driver = rank_and_driver(checkpoint, kernels, budget)
    done = driver.run(
        Request(id=f"r{i}", prompt=tuple(row.tolist()), max_tokens=NEW, sampling=Sampling(temperature=0.0))
        for i, row in enumerate(ids)
    )
    assert [done[f"r{i}"].token_ids for i in range(2)] == expected[:, PROMPT:].tolist()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_random_configs(family, seed, kernels, tmp_path):
    """Whole, in chunks, and token by token after a prefill or from the start."""
    model = random_model(random_config(family, seed), seed)
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path, tokenizer_required=False)
    ids = torch.randint(0, VOCAB, (2, 40), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = model(ids).logits
    torch.set_num_threads(1)
    for pieces in ([40], [7] * 5 + [5], [24] + [1] * 16, [1] * 40):
        logits = logits_by_pieces(make_rank(checkpoint, kernels), ids, pieces)
        assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max(), pieces


def test_likelihood(both):
    """Logits agree through what they are for: the likelihood of a text, to six digits."""
    model, checkpoint = both
    ids = torch.randint(0, 96, (1, 40), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
    rank, _ = rank_and_driver(checkpoint, "auto", 64)
    assert score(rank, ids[0].tolist(), size=64) == pytest.approx(expected.item(), rel=1e-5)
