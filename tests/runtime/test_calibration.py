"""Calibration: layer by layer, by what a text shows of each matrix's inputs."""

from pathlib import Path

import pytest
import torch
from golden_ranks import logits_by_pieces, make_rank

from rackscale.checkpoint import open_checkpoint
from rackscale.checkpoint.numerics import nvfp4
from rackscale.checkpoint.quantizer.scope import groups_of
from rackscale.core import SpecError
from rackscale.runtime.calibration import CalibratedEncoder, calibrate, calibrate_tokens
from rackscale.runtime.calibration.moments import Moments
from rackscale.runtime.calibration.patched import Patched

BUNDLED = Path(__file__).parents[2] / "models" / "austen-moe"
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, " * 3
MATRICES = ("q", "k", "v", "q_a", "q_b", "kv_a", "kv_b", "o", "gate", "up", "down", "head")


def linear_roles(checkpoint):
    """All matrices but routers and embeddings."""
    roles = [role for role in checkpoint.metadata.sources if role.rpartition(".")[2] in MATRICES]
    return [role for role in roles if role != "head" or not checkpoint.spec.tied_embeddings]


def decoded(packed):
    return nvfp4.decode(packed.codes, packed.scales, torch.tensor(packed.tensor_scale))


def calibrated(checkpoint, tokens, roles, scratch):
    """A checkpoint with the roles as calibration leaves them, and the answers by role."""
    encoder = calibrate_tokens(checkpoint, tokens, roles, scratch)
    patched, answers = Patched(checkpoint), {}
    for group in groups_of(roles):
        weights = tuple(checkpoint.tensor(role) for role in group)
        answers |= dict(zip(group, encoder.encode(group, weights), strict=True))
    patched.patches = {role: decoded(packed) for role, packed in answers.items()}
    return patched, answers


def rounded(checkpoint, roles):
    """A checkpoint with the roles rounded to nearest."""
    patched = Patched(checkpoint)
    for role in roles:
        patched.patches[role] = nvfp4.decode(*nvfp4.encode(checkpoint.tensor(role)))
    return patched


def logits_of(checkpoint, golden):
    return logits_by_pieces(make_rank(checkpoint, "reference"), golden["input_ids"][:1], [48])


def test_logits_change_less_than_by_rounding_to_nearest(checkpoint, golden, tmp_path):
    roles = linear_roles(checkpoint)
    tokens = golden["input_ids"][0].tolist()
    patched, answers = calibrated(checkpoint, tokens, roles, tmp_path)
    assert set(answers) == set(roles)
    expected = logits_of(checkpoint, golden)
    errors = [(logits_of(other, golden) - expected).norm() for other in (patched, rounded(checkpoint, roles))]
    assert errors[0] < 0.8 * errors[1]


@pytest.fixture(scope="module")
def of_bundled(tmp_path_factory, bundled):
    """The experts of the bundled model's second layer, calibrated on a few lines: roles, folder, encoder."""
    roles = [role for role in bundled.metadata.sources if role.startswith("layers.1.experts.")]
    scratch = tmp_path_factory.mktemp("calibrated")
    return roles, scratch, calibrate(BUNDLED, TEXT, roles, scratch)


@pytest.fixture(scope="module")
def bundled():
    return open_checkpoint(BUNDLED)


def encode_all(checkpoint, encoder, roles):
    return {
        role: packed
        for group in groups_of(roles)
        for role, packed in zip(
            group, encoder.encode(group, tuple(map(checkpoint.tensor, group))), strict=True
        )
    }


def test_scales_are_shared_as_engines_want_them(bundled, of_bundled):
    roles, _, encoder = of_bundled
    answers = encode_all(bundled, encoder, roles)
    gates = [answers[f"layers.1.experts.{number}.gate"] for number in range(64)]
    ups = [answers[f"layers.1.experts.{number}.up"] for number in range(64)]
    downs = [answers[f"layers.1.experts.{number}.down"] for number in range(64)]
    assert [packed.tensor_scale for packed in gates] == [packed.tensor_scale for packed in ups]
    assert len({packed.tensor_scale for packed in gates}) > 1
    assert len({packed.input_scale for packed in gates + ups}) == 1
    assert len({packed.input_scale for packed in downs}) == 1
    assert all(packed.input_scale > 0 for packed in answers.values())


def test_every_matrix_stays_close_to_what_it_was(bundled, of_bundled):
    """Also those of experts that no token of the text got."""
    roles, _, encoder = of_bundled
    for role, packed in encode_all(bundled, encoder, roles).items():
        weight = bundled.tensor(role).float()
        assert (decoded(packed) - weight).norm() < 0.35 * weight.norm(), role


def test_what_was_done_before_is_taken_from_its_file(of_bundled):
    roles, scratch, _ = of_bundled
    (path,) = scratch.iterdir()
    made = path.stat().st_mtime_ns
    again = calibrate(BUNDLED, TEXT, roles, scratch)
    assert path.stat().st_mtime_ns == made
    assert again == CalibratedEncoder(scratch=scratch)


def test_the_same_text_gives_the_same_bytes(of_bundled, tmp_path):
    roles, scratch, _ = of_bundled
    calibrate(BUNDLED, TEXT, roles, tmp_path)
    first, second = (next(folder.iterdir()).read_bytes() for folder in (scratch, tmp_path))
    assert first == second


def test_progress_counts_layers(bundled, tmp_path):
    told = []
    calibrate_tokens(bundled, [1, 2, 3], [], tmp_path, lambda *counts: told.append(counts))
    assert told == [(number, 5) for number in range(1, 6)]


def test_a_role_that_was_not_calibrated_is_refused(of_bundled):
    _, _, encoder = of_bundled
    with pytest.raises(SpecError, match=r"layers\.1\.attn\.o"):
        encoder.encode(("layers.1.attn.o",), (torch.zeros(1),))
    with pytest.raises(SpecError, match=r"layers\.2\.safetensors"):
        encoder.encode(("layers.2.attn.o",), (torch.zeros(1),))


def test_a_text_of_one_token_is_refused(bundled, tmp_path):
    with pytest.raises(SpecError, match="too short"):
        calibrate_tokens(bundled, [1], [], tmp_path)


def test_weights_make_up_for_inputs_that_are_off():
    generator = torch.Generator().manual_seed(0)
    y_TK = torch.randn(500, 16, generator=generator)
    x_TK = 0.9 * y_TK + 0.05 * torch.randn(500, 16, generator=generator)
    weight = torch.randn(8, 16, generator=generator)
    moments = Moments(1, 16)
    for part in range(0, 500, 100):
        moments.add(0, x_TK[part : part + 100], y_TK[part : part + 100])
    suited = moments.suited(weight[None])[0]
    before, after = (x_TK @ matrix.mT - y_TK @ weight.mT for matrix in (weight, suited))
    assert after.norm() < 0.7 * before.norm()
    assert moments.largest == pytest.approx(float(x_TK.abs().max()))
