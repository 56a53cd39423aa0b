"""What activations and KV are computed and kept in, by the name of the option."""

import torch

DTYPES = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16}
