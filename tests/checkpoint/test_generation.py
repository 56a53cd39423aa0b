"""What generation_config.json and config.json say of sampling and ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from rackscale.checkpoint import GenerationDefaults
from rackscale.checkpoint.fields import Fields
from rackscale.checkpoint.generation import read_generation
from rackscale.core import Sampling, SpecError


def read(folder: Path, generation: dict[str, Any] | None, **config: Any) -> GenerationDefaults:
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return read_generation(folder, Fields(config, folder / "config.json"))


def test_all_that_a_file_says(tmp_path: Path) -> None:
    told = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 1, "repetition_penalty": 1.1}
    found = read(tmp_path, {**told, "eos_token_id": [1, 7], "bos_token_id": 0}, eos_token_id=5)
    assert found.eos_token_ids == (1, 7)
    assert found.bos_token_id == 0
    assert found.sampling() == Sampling(temperature=0.6, top_k=20, top_p=1.0, repetition_penalty=1.1)


@pytest.mark.parametrize("generation", [None, {}, {"eos_token_id": None}])
def test_config_says_what_the_file_does_not(tmp_path: Path, generation: dict[str, Any] | None) -> None:
    found = read(tmp_path, generation, eos_token_id=[5, 6], bos_token_id=4)
    assert found == GenerationDefaults(eos_token_ids=(5, 6), bos_token_id=4)  # type: ignore[arg-type]


def test_nothing_said_is_greedy_without_end(tmp_path: Path) -> None:
    found = read(tmp_path, None)
    assert found == GenerationDefaults(eos_token_ids=())
    assert found.sampling() == Sampling(temperature=0.0)


def test_a_temperature_without_do_sample_is_void(tmp_path: Path) -> None:
    assert read(tmp_path, {"temperature": 0.7, "top_k": 5}).sampling() == Sampling(temperature=0.0)


def test_sampling_without_figures_is_the_whole_distribution(tmp_path: Path) -> None:
    assert read(tmp_path, {"do_sample": True, "top_k": None}).sampling() == Sampling(temperature=1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eos_token_id", "1"),
        ("eos_token_id", [1, -2]),
        ("eos_token_id", [True]),
        ("bos_token_id", 1.5),
        ("temperature", "hot"),
        ("temperature", float("inf")),
        ("temperature", -0.5),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", 1.5),
        ("top_k", -1),
        ("repetition_penalty", 0),
        ("do_sample", 1),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(SpecError, match=rf"{field} in .*generation_config\.json"):
        read(tmp_path, {field: value})
