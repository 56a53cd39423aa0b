"""transformers and compressed-tensors load what `rackscale quantize` writes, and see the same numbers."""

import warnings

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CompressedTensorsConfig,
    FineGrainedFP8Config,
    LlamaConfig,
    LlamaForCausalLM,
)

from rackscale.checkpoint import open_checkpoint
from rackscale.checkpoint.quantizer import Options, OutputFormat, Scope, open_job

# Rows in whole blocks of 128, or one: transformers takes FP8 blocks at an edge for smaller ones.
CONFIG = {
    "vocab_size": 256, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}  # fmt: skip
TWO_ROUNDINGS = 2**-7  # they decode in bf16


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(**CONFIG)).bfloat16().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", [form for form in OutputFormat if form != OutputFormat.NVFP4])
def test_transformers_loads_it(source, tmp_path, form):
    how = FineGrainedFP8Config(dequantize=True)
    if form != OutputFormat.FP8:
        pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
        how = CompressedTensorsConfig(dequantize=True)
    with open_job(source, tmp_path / "out", Options(form=form, scope=Scope.LINEAR)) as job:
        job.run()
    checkpoint = open_checkpoint(tmp_path / "out", tokenizer_required=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        actual = AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", dtype=torch.bfloat16, quantization_config=how
        )
    weights = actual.state_dict()
    for role, tensor in checkpoint.metadata.sources.items():
        theirs, ours = weights[tensor.tensor].float(), checkpoint.tensor(role).float()
        torch.testing.assert_close(theirs, ours, rtol=TWO_ROUNDINGS, atol=0)
