"""From the trained module to a Hugging Face folder in DeepSeek-V3's names and spelling."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from model import Model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokens import END
from torch import Tensor

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n' }}{% endif %}"
)


def config(model: Model, end: int) -> dict[str, object]:
    """config.json, spelled as published checkpoints spell it."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **asdict(model.s),
        "q_lora_rank": None,
        "num_key_value_heads": model.s.num_attention_heads,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def places(model: Model) -> dict[str, Tensor]:
    """Where each published tensor is in the module: views, to be read from or written to."""
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if ".mlp.router" in name:
            found[f"model.{name.replace('router', 'gate.weight')}"] = value
        elif ".mlp.correction_E" in name:
            found[f"model.{name.replace('correction_E', 'gate.e_score_correction_bias')}"] = value
        elif value.ndim == 3:
            prefix, part = name.rsplit(".", 1)
            for expert, matrix in enumerate(value):
                names = ("gate", "up") if part == "gate_up" else ("down",)
                for projection, rows in zip(names, matrix.chunk(len(names)), strict=True):
                    found[f"model.{prefix}.experts.{expert}.{projection}_proj.weight"] = rows
        else:
            found[f"model.{name.replace('.shared.', '.shared_experts.')}"] = value
    return found


def tensors(model: Model) -> dict[str, Tensor]:
    """Weights by their published names: bf16, and the routers' biases fp32."""
    return {
        name: value.detach().to(torch.float32 if "e_score" in name else torch.bfloat16).contiguous().clone()
        for name, value in places(model).items()
    }


@torch.no_grad()
def restore(model: Model, folder: Path) -> None:
    """Read the weights of an exported folder back, to go on from them."""
    stored = load_file(folder / "model.safetensors")
    for name, value in places(model).items():
        value.copy_(stored[name])


def export(model: Model, tokenizer: Tokenizer, out: Path) -> None:
    """Write the folder; what is there is replaced."""
    out.mkdir(parents=True, exist_ok=True)
    end = tokenizer.token_to_id(END)
    _json(out / "config.json", config(model, end))
    _json(
        out / "generation_config.json",
        {"bos_token_id": end, "eos_token_id": end, "do_sample": True, "temperature": 0.8, "top_p": 0.95},
    )
    _json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": END,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.s.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    tokenizer.save(str(out / "tokenizer.json"))
    save_file(tensors(model), out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)


def _json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
