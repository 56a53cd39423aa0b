"""TOML files as a user may write them."""


def fact(value, unit, **over):
    entry = {"value": value, "unit": unit, "source": "me", "confidence": "assumed"} | over
    return {key: content for key, content in entry.items() if content is not None}


def chip(**facts):
    return {
        "name": "c1",
        "title": "C1",
        "generation": "other",
        "facts": {
            "tensor_bf16": fact(1, "PFLOP/s"),
            "hbm": fact(100, "GiB"),
            "hbm_bandwidth": fact(4000, "GB/s"),
            "tdp": fact(0.5, "kW"),
        }
        | facts,
    }


def system(**facts):
    return {
        "name": "s1",
        "title": "S1",
        "chip": "h200",
        "facts": {
            "domain": fact(16, "chips"),
            "scale_up": fact(900, "GB/s per chip per direction"),
            "scale_out": fact(800, "Gb/s per chip"),
            "host_memory": fact(1, "TB per chip"),
            "host_link": fact(64, "GB/s"),
            "power_it": fact(1500, "W per chip"),
            "power_utility": fact(1.8, "kW per chip"),
        }
        | facts,
    }


def model(**config):
    given = {
        "weights": "bf16",
        "linear_weights": "bf16",
        "context": 4096,
        "family": "mine",
        "vocab_size": 1000,
        "hidden": 64,
        "num_layers": 4,
        "dense_width": 256,
        "norm_eps": 1e-6,
        "max_positions": 4096,
        "attention": {"kind": "gqa", "num_heads": 8, "num_kv_heads": 2, "head_dim": 16},
        "rope": {"theta": 1e4, "dim": 16},
        "moe": {"width": 32},
        "router": {"num_experts": 16, "top_k": 4, "scoring": "softmax"},
    } | config
    return {
        "name": "m1",
        "title": "M1",
        "origin": {"source": "me", "confidence": "assumed"},
        "config": {key: value for key, value in given.items() if value is not None},
    }


def write(path, values):
    path.write_text("\n".join(_lines(values, "")))
    return path


def _lines(values, prefix):
    for key, value in values.items():
        if not isinstance(value, dict):
            yield f"{key} = {_text(value)}"
    for key, value in values.items():
        if isinstance(value, dict):
            yield f"[{prefix}{key}]"
            yield from _lines(value, f"{prefix}{key}.")


def _text(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
