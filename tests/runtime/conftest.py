"""Golden models, opened once, and ranks over them."""

import pytest
import torch
from golden_ranks import FAMILIES, GOLDEN, KERNELS, make_rank
from safetensors.torch import load_file

from rackscale.checkpoint import open_checkpoint


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small products are not worth a second one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="session")
def checkpoint(family):
    return open_checkpoint(GOLDEN / family, tokenizer_required=False)


@pytest.fixture(scope="session")
def golden(family):
    """See the folder's README: input_ids, greedy_ids, logits, logits_prefill, margin."""
    return load_file(GOLDEN / family / "golden.safetensors")


@pytest.fixture(params=KERNELS)
def rank(request, checkpoint):
    return make_rank(checkpoint, request.param)
