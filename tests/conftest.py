"""What all tests share: one profile for hypothesis, and paths."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("tests", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tests")
# A shell that runs tests in the background has them ignore Ctrl-C, and so would what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The trained model that the repository ships."""
    return ROOT / "models" / "austen-moe"


@pytest.fixture(scope="session")
def quantised_model() -> Path:
    """The same in NVFP4: what `make serve` serves."""
    return ROOT / "models" / "austen-moe-nvfp4"


@pytest.fixture(scope="session")
def golden_logits() -> Path:
    """Tiny random models with the logits of transformers."""
    return ROOT / "tests" / "golden" / "logits"
