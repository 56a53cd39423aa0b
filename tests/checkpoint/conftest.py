"""Folders to open: copies of the golden models, with a tokenizer beside them."""

import shutil
from pathlib import Path

import pytest
from folders import MakeFolder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIALS = ("<s>", "</s>", "<unk>")
MERGES = (("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"))


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of bytes, a few merges and three special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIALS, *letters, *(left + right for left, right in MERGES)]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=list(MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def make_folder(tmp_path: Path, golden_logits: Path, tiny_tokenizer: Path) -> MakeFolder:
    """Copies a golden model, which the test may then break."""

    def make(model: str = "deepseek_v3") -> Path:
        folder = tmp_path / model
        folder.mkdir()
        for name in ("config.json", "model.safetensors", "generation_config.json"):
            shutil.copy(golden_logits / model / name, folder / name)
        shutil.copy(tiny_tokenizer, folder / "tokenizer.json")
        return folder

    return make


@pytest.fixture(scope="session")
def golden_nvfp4() -> Path:
    """Vectors of low-bit formats, and whole models that ModelOpt exported."""
    return Path(__file__).parents[1] / "golden" / "nvfp4"
