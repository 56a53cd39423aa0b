import itertools
from collections.abc import Iterator

import packed_weights as w
import pytest
import torch
from torch import Tensor

from rackscale.checkpoint.codecs.packed import Format, Packed
from rackscale.core import SpecError
from rackscale.runtime import _native
from rackscale.runtime.kernels.packing import ExpertParts, PackedMatrix, Packer, packable

FORMATS = [*Format, None]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def _sets() -> list[str]:
    before, found = _native.instructions(), []
    for name in ("portable", "avx2", "avx512"):
        try:
            _native.set_instructions(name)
        except ValueError:
            continue
        found.append(name)
    _native.set_instructions(before)
    return found


@pytest.fixture(params=_sets())
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.instructions()
    _native.set_instructions(request.param)
    yield request.param
    _native.set_instructions(before)


def _shapes(format_: Format | None) -> list[tuple[int, int]]:
    shapes = [(16, 64), (40, 96), (50, 352), (17, 32), (1, 128), (24, 2048)]
    return [*shapes, (33, 48), (20, 16), (16, 80)] if format_ == Format.NVFP4 else shapes


def _rounded(x_TK: Tensor, format_: Format | None, activations: int) -> Tensor:
    if activations == w.FP32:
        return x_TK.double()
    if activations == w.INT8 and format_ in {Format.NVFP4, Format.INT4, Format.MXFP4}:
        return w.as_int8(x_TK)
    return x_TK.bfloat16().double()


def _assert_close(out: Tensor, x_TK: Tensor, values_NK: Tensor) -> None:
    """Within the rounding of sums in fp32."""
    bound = x_TK.abs() @ values_NK.abs().T
    assert bool(((out.double() - x_TK @ values_NK.T).abs() <= 2e-6 * bound).all())


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("activations", [w.FP32, w.BF16, w.INT8])
@pytest.mark.parametrize("format_", FORMATS)
def test_products_are_those_of_the_decoded_weight(format_: Format | None, activations: int) -> None:
    for seed, (rows, columns) in enumerate(_shapes(format_)):
        weight = w.random_weight(format_, rows, columns, seed)
        x_TK = torch.randn(19, columns, generator=torch.Generator().manual_seed(seed))
        out = w.product(x_TK, w.packed(weight.part), activations, threads=2)
        _assert_close(out, _rounded(x_TK, format_, activations), weight.values)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("activations", [w.FP32, w.BF16, w.INT8, w.NVFP4])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_token_does_not_depend_on_its_company_nor_on_threads(
    format_: Format | None, activations: int
) -> None:
    matrix = w.packed(w.random_weight(format_, 560, 480).part)
    x_TK = torch.randn(171, 480)
    together = w.product(x_TK, matrix, activations, threads=2)
    for count in (1, 2, 3, 5, 9, 16, 37, 129):
        assert torch.equal(w.product(x_TK[:count], matrix, activations), together[:count])


def _scaled(codes: Tensor, bits: Tensor) -> w.Weight:
    """NVFP4 of given codes [N, K] and E4M3 scales."""
    values = w.E2M1[codes.long()] * bits.view(torch.float8_e4m3fn).double().repeat_interleave(16, 1)
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).contiguous()
    return w.Weight(Packed(format=Format.NVFP4, codes=packed, scales=bits), values)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("bits", [(0, 80), (48, 127), (56, 57), (40, 127), (0, 127)])
def test_scales_close_together_and_far_apart(bits: tuple[int, int]) -> None:
    codes = torch.randint(0, 16, (40, 448), dtype=torch.uint8)
    scales = torch.randint(*bits, (40, 28), dtype=torch.uint8)
    scales[::3, ::4] = 0
    scales[:, 8:16] = 56 + scales[:, 8:16] % 8
    weight = _scaled(codes, scales)
    matrix = w.packed(weight.part)
    x_TK = torch.randn(37, 448)
    together = w.product(x_TK, matrix, w.INT8, threads=2)
    _assert_close(together, w.as_int8(x_TK), weight.values)
    for count in range(1, 11):
        assert torch.equal(w.product(x_TK[:count], matrix, w.INT8), together[:count])


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("count", [1, 8, 9])
@pytest.mark.parametrize("code", [7, 15])
def test_the_largest_sums_do_not_overflow(code: int, count: int) -> None:
    scales = torch.full((16, 16), 126, dtype=torch.uint8)
    scales[:, 3], scales[:, 11] = 48, 47
    weight = _scaled(torch.full((16, 256), code, dtype=torch.uint8), scales)
    x_TK = torch.ones(count, 256)
    x_TK[-1] = -1
    _assert_close(w.product(x_TK, w.packed(weight.part), w.INT8), x_TK.double(), weight.values)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-20, 1e30])
def test_extreme_inputs(size: float) -> None:
    weight = w.random_weight(Format.NVFP4, 32, 256, scale=1e-6)
    x_TK = torch.randn(3, 256) * size
    for activations in (w.FP32, w.INT8):
        expected = _rounded(x_TK, Format.NVFP4, activations)
        if activations == w.INT8 and size < 2.0**-100:
            expected = torch.zeros_like(expected)
        out = w.product(x_TK, w.packed(weight.part), activations)
        bound = 2e-6 * (expected.abs() @ weight.values.abs().T)
        assert bool(((out.double() - expected @ weight.values.T).abs() <= bound + 1e-36).all())


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e20])
def test_extreme_scales(scale: float) -> None:
    weight = w.random_weight(Format.NVFP4, 32, 256, scale=scale)
    x_TK = torch.randn(3, 256)
    for activations in (w.FP32, w.BF16, w.INT8):
        out = w.product(x_TK, w.packed(weight.part), activations)
        _assert_close(out, _rounded(x_TK, Format.NVFP4, activations), weight.values)


def _as_nvfp4(x_TK: Tensor, input_scale: float) -> Tensor:
    """ModelOpt's formulas, one rounding after the other."""
    codes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    middles = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5])
    blocks = x_TK.unflatten(1, (-1, 16))
    s2 = (
        torch.full((len(x_TK), 1, 1), input_scale)
        if input_scale
        else x_TK.abs().amax(1)[:, None, None] / 2688
    )
    ratio = blocks.abs().amax(2, keepdim=True) / (6 * s2)
    ratio = torch.where(ratio == 0, 1.0, ratio).clamp(2.0**-9, 448).to(torch.float8_e4m3fn).float()
    x = blocks / (ratio * s2)
    size = x.abs()[..., None]
    above = torch.where(torch.arange(7) % 2 == 1, size >= middles, size > middles).sum(-1)
    return (codes[above] * x.sign() * (ratio * s2)).double().flatten(1)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("input_scale", [0.0, 0.002])
def test_w4a4(input_scale: float) -> None:
    weight = w.random_weight(Format.NVFP4, 48, 208)
    x_TK = torch.randn(9, 208) * torch.logspace(-3, 1, 208)
    x_TK[2] = 0
    x_TK[3, :16] = 0
    out = w.product(x_TK, w.packed(weight.part), w.NVFP4, input_scale=input_scale)
    expected = _as_nvfp4(x_TK, input_scale)
    expected[2] = 0
    _assert_close(out, expected, weight.values)


def _experts(
    format_: Format | None, count: int, hidden: int, width: int
) -> tuple[tuple[PackedMatrix, PackedMatrix], list[tuple[Tensor, Tensor, Tensor]]]:
    packer, parts, values = Packer(2), [], []
    for n in range(count):
        scale = 0.02 if format_ != Format.MXFP4 else 1.0
        gate, up = (w.random_weight(format_, width, hidden, 3 * n + i, scale) for i in (0, 1))
        down = w.random_weight(format_, hidden, width, 3 * n + 2, scale)
        parts.append(ExpertParts(gate=gate.part, up=up.part, down=down.part))
        values.append((gate.values, up.values, down.values))
    matrices = packer.experts(parts)
    packer.take()()
    return matrices, values


def _run_experts(
    x_TH: Tensor,
    gates_TK: Tensor,
    ids_TK: Tensor,
    matrices: tuple[PackedMatrix, PackedMatrix],
    biases: tuple[Tensor, Tensor] | None,
    threads: int,
    activations: int = w.FP32,
) -> Tensor:
    gate_up, down = matrices
    experts = _native.PackedExperts(
        num_experts=len(down.tiles),
        hidden=gate_up.depth,
        width=down.depth,
        gate_up=w.descriptor(gate_up, activations),
        down=w.descriptor(down, activations),
        gate_up_bias=biases[0].data_ptr() if biases else 0,
        down_bias=biases[1].data_ptr() if biases else 0,
        clamped=biases is not None,
        alpha=1.702,
        limit=7.0,
    )
    out = torch.empty_like(x_TH)
    _native.packed_experts(
        x_TH.data_ptr(),
        gates_TK.data_ptr(),
        ids_TK.data_ptr(),
        len(x_TH),
        ids_TK.shape[1],
        experts,
        out.data_ptr(),
        threads,
    )
    return out


def _routing(tokens: int, top_k: int, num_experts: int) -> tuple[Tensor, Tensor]:
    ids = torch.stack([torch.randperm(num_experts)[:top_k] for _ in range(tokens)]).int()
    ids[tokens // 2, 0] = -1
    return torch.rand(tokens, top_k), ids


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("format_", "width"), [(Format.NVFP4, 80), (Format.MXFP4, 96), (None, 40)])
def test_experts_are_those_of_the_formula(format_: Format | None, width: int, *, with_bias: bool) -> None:
    hidden, count = 96, 6
    matrices, values = _experts(format_, count, hidden, width)
    biases = (torch.randn(count, 2 * width), torch.randn(count, hidden)) if with_bias else None
    x_TH = torch.randn(23, hidden) * 0.1
    gates_TK, ids_TK = _routing(23, 3, count)
    expected = torch.zeros(23, hidden, dtype=torch.float64)
    for token, k in itertools.product(range(23), range(3)):
        expert = int(ids_TK[token, k])
        if expert < 0:
            continue
        gate_w, up_w, down_w = values[expert]
        x = x_TH[token].double()
        gate, up = gate_w @ x, up_w @ x
        if biases:
            gate, up = gate + biases[0][expert, :width], up + biases[0][expert, width:]
            gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
            inner = gate * torch.sigmoid(1.702 * gate) * (up + 1)
            result = down_w @ inner + biases[1][expert]
        else:
            result = down_w @ (torch.nn.functional.silu(gate) * up)
        expected[token] += gates_TK[token, k].double() * result
    out = _run_experts(x_TH, gates_TK, ids_TK, matrices, biases, threads=2)
    assert torch.allclose(out.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("activations", [w.FP32, w.BF16, w.INT8, w.NVFP4])
def test_experts_do_not_depend_on_company_nor_on_threads(activations: int) -> None:
    matrices, _ = _experts(Format.NVFP4, 5, 128, 144)
    x_TH = torch.randn(70, 128)
    gates_TK, ids_TK = _routing(70, 2, 5)
    together = _run_experts(x_TH, gates_TK, ids_TK, matrices, None, 2, activations)
    for count in (1, 2, 9):
        alone = _run_experts(x_TH[:count], gates_TK[:count], ids_TK[:count], matrices, None, 1, activations)
        assert torch.equal(alone, together[:count])


def test_an_mlp_is_its_two_products() -> None:
    hidden, width = 96, 64
    gate, up = (w.random_weight(Format.NVFP4, width, hidden, seed, 0.05) for seed in (0, 1))
    down = w.random_weight(Format.NVFP4, hidden, width, 2, 0.05)
    packer = Packer(1)
    first, second = packer.gate_up(gate.part, up.part), packer.matrix([down.part])
    packer.take()()
    x_TH, out = torch.randn(5, hidden), torch.ones(5, hidden)
    _native.packed_mlp(
        x_TH.data_ptr(),
        hidden,
        5,
        w.descriptor(first, w.FP32),
        w.descriptor(second, w.FP32),
        True,  # noqa: FBT003 (by position, as all of _native's)
        out.data_ptr(),
        hidden,
        2,
    )
    x = x_TH.double()
    inner = torch.nn.functional.silu(x @ gate.values.T) * (x @ up.values.T)
    expected = 1 + inner @ down.values.T
    assert torch.allclose(out.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("format_", FORMATS)
def test_parts_follow_one_another_and_may_be_sliced(format_: Format | None) -> None:
    first, second = (w.random_weight(format_, rows, 256, rows) for rows in (32, 72))
    packer = Packer(2)
    whole = packer.matrix([first.part, second.part])
    packer.take()()
    x_TK = torch.randn(3, 256)
    out = w.product(x_TK, whole, w.FP32)
    assert torch.equal(out[:, :32], w.product(x_TK, w.packed(first.part), w.FP32))
    assert torch.equal(out[:, 32:], w.product(x_TK, w.packed(second.part), w.FP32))
    assert torch.equal(out[:, 16:104], w.product(x_TK, whole.outputs(16, 104), w.FP32))
    halves = [
        w.product(x_TK[:, part].contiguous(), whole.inputs(part.start, part.stop), w.FP32)
        for part in (slice(0, 128), slice(128, 256))
    ]
    assert torch.allclose(halves[0] + halves[1], out, rtol=1e-4, atol=1e-4 * float(out.abs().max()))
    with pytest.raises(SpecError, match="cut a tile"):
        whole.outputs(8, 104)
    with pytest.raises(SpecError, match="cut a block"):
        whole.inputs(32, 256)


def test_rows_may_lie_apart() -> None:
    weight = w.random_weight(Format.MXFP4, 64, 128)
    part = weight.part
    assert not isinstance(part, torch.Tensor)
    even = type(part)(format=part.format, codes=part.codes[::2], scales=part.scales[::2])
    x_TK = torch.randn(2, 128)
    out = w.product(x_TK, w.packed(even), w.FP32)
    assert torch.equal(out, w.product(x_TK, w.packed(part), w.FP32)[:, ::2])


def test_what_cannot_be_packed_is_refused() -> None:
    odd, even = (w.random_weight(Format.NVFP4, rows, 64).part for rows in (24, 32))
    assert packable([even, odd])
    assert not packable([odd, even])
    assert not packable([even, w.random_weight(Format.INT4, 32, 64).part])
    assert not packable([torch.zeros(16, 64)])
    with pytest.raises(SpecError, match="cannot be packed as one"):
        Packer(1).matrix([odd, even])
    with pytest.raises(SpecError, match="differ"):
        Packer(1).gate_up(odd, even)


def test_a_set_that_the_machine_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="does not have"):
        _native.set_instructions("avx1024")
