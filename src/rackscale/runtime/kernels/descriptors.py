"""Weights as C++ sees them: addresses and sizes, made once and kept with the tensors that they point into."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor

from rackscale.runtime import _native
from rackscale.runtime.kernels.packing import PackedMatrix
from rackscale.runtime.kernels.weights import (
    ExpertWeights,
    GqaWeights,
    Linear,
    MlaWeights,
    MlpWeights,
    MoeWeights,
)
from rackscale.runtime.precision import Products
from rackscale.specs import QkNorm, RouterSpec, Scoring

SCORINGS = {Scoring.SOFTMAX: 0, Scoring.TOPK_SOFTMAX: 1, Scoring.SIGMOID: 2}
ACTIVATIONS = {Products.FP32: 0, Products.BF16: 1, Products.INT8: 2, Products.NVFP4: 3}
QK_NORMS = {QkNorm.NONE: 0, QkNorm.HEAD: 1, QkNorm.PROJECTION: 2}
NULL = 0
NO_MATRIX = _native.Matrix(NULL, False, 0, 0, NULL)  # noqa: FBT003 (C++ names no arguments)
Source = TypeVar("Source")
Made = TypeVar("Made")


def address(tensor: Tensor | None) -> int:
    """Where the tensor's elements are; 0 for none."""
    return NULL if tensor is None else tensor.data_ptr()


class Descriptors:
    """One of each thing described. What it was made of is kept, so that no address outlives its tensor.

    products: what packed weights' input is rounded to."""

    def __init__(self, products: Products) -> None:
        self._activations = ACTIVATIONS[products]
        self._made: dict[Hashable, tuple[object, object]] = {}

    def matrix(self, layer: Linear) -> _native.Matrix:
        """Of a linear layer."""
        return self._once(id(layer), layer, self._matrix)

    def packed(self, layer: Linear) -> _native.Packed:
        """Of a linear layer that is packed."""
        assert isinstance(layer.weight, PackedMatrix), "whoever asks knows that it is packed"
        return self._packed(layer.weight)

    def experts(self, experts: ExpertWeights) -> "_native.Experts | _native.PackedExperts":
        """Of a layer's routed experts."""
        return self._once(id(experts), experts, self._experts)

    def router(self, router: RouterSpec) -> _native.Router:
        """Equal specs share one."""
        return self._once(router, router, _router)

    def mla(self, weights: MlaWeights) -> _native.Mla:
        """Of a layer's attention."""
        spec = weights.spec
        return _native.Mla(
            num_heads=spec.num_heads,
            nope=spec.nope_head_dim,
            rope=spec.rope_head_dim,
            value_width=spec.v_head_dim,
            rank=spec.kv_lora_rank,
            scale=weights.scale,
            eps=weights.eps,
            first=self.matrix(weights.first),
            query_norm=address(weights.query_norm),
            query_up=NO_MATRIX if weights.query_up is None else self.matrix(weights.query_up),
            latent_norm=address(weights.latent_norm),
            key_up=_by_head(weights.key_up_ANR),
            value_up=_by_head(weights.value_up_ARV),
            out=self.matrix(weights.out),
        )

    def gqa(self, weights: GqaWeights) -> _native.Gqa:
        """Of a layer's attention."""
        spec = weights.spec
        return _native.Gqa(
            num_heads=spec.num_heads,
            num_key_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            window=weights.window or 0,
            scale=weights.scale,
            eps=weights.eps,
            clip=torch.inf if spec.clip_qkv is None else spec.clip_qkv,
            norm=QK_NORMS[spec.qk_norm],
            first=self.matrix(weights.first),
            query_norm=address(weights.query_norm),
            key_norm=address(weights.key_norm),
            sinks=address(weights.sinks_A),
            out=self.matrix(weights.out),
        )

    def mlp(self, weights: MlpWeights) -> _native.Mlp:
        """Of a dense feed-forward part."""
        return _native.Mlp(self.matrix(weights.gate_up), self.matrix(weights.down))

    def moe(self, weights: MoeWeights, ranks: _native.AllToAll | None, number: int) -> _native.Moe:
        """Of a feed-forward part with experts. ranks: that share them. number: among such layers."""
        shared = weights.shared
        return _native.Moe(
            ranks,
            number,
            self.matrix(weights.router),
            address(weights.correction_E),
            self.router(weights.spec.router),
            self.experts(weights.experts),
            _native.Mlp(NO_MATRIX, NO_MATRIX) if shared is None else self.mlp(shared),
        )

    def _matrix(self, layer: Linear) -> _native.Matrix:
        if isinstance(layer.weight, PackedMatrix):
            return _native.Matrix(self._packed(layer.weight), address(layer.bias))
        depth, columns = layer.weight.shape
        bf16 = layer.weight.dtype == torch.bfloat16
        return _native.Matrix(layer.weight.data_ptr(), bf16, depth, columns, address(layer.bias))

    def _experts(self, experts: ExpertWeights) -> "_native.Experts | _native.PackedExperts":
        gate_up, down, moe = experts.gate_up, experts.down, experts.moe
        if isinstance(gate_up, PackedMatrix) and isinstance(down, PackedMatrix):
            return _native.PackedExperts(
                num_experts=len(down.tiles),
                hidden=gate_up.depth,
                width=down.depth,
                gate_up=self._packed(gate_up),
                down=self._packed(down),
                gate_up_bias=address(experts.gate_up_bias),
                down_bias=address(experts.down_bias),
                clamped=experts.clamped,
                alpha=moe.swiglu_alpha,
                limit=moe.swiglu_limit,
            )
        plain, plain_down = experts.plain
        num_experts, hidden, double = plain.shape
        return _native.Experts(
            num_experts,
            hidden,
            double // 2,
            plain.data_ptr(),
            plain_down.data_ptr(),
            plain.dtype == torch.bfloat16,
            address(experts.gate_up_bias),
            address(experts.down_bias),
            experts.clamped,
            moe.swiglu_alpha,
            moe.swiglu_limit,
        )

    def _packed(self, matrix: PackedMatrix) -> _native.Packed:
        return _native.Packed(
            format=matrix.layout,
            activations=self._activations,
            depth=matrix.depth,
            columns=matrix.columns,
            tiles=matrix.tiles.data_ptr(),
            tile_scales=matrix.tile_scales.data_ptr(),
            input_scale=matrix.input_scale or 0.0,
        )

    def _once(self, key: Hashable, source: Source, make: Callable[[Source], Made]) -> Made:
        known = self._made.get(key)
        if known is None:
            self._made[key] = known = (source, make(source))
        return known[1]  # type: ignore[return-value]  # each key has one maker


def _by_head(weight: Tensor) -> _native.Matrix:
    """The first of several matrices that lie one after the other."""
    _, depth, columns = weight.shape
    return _native.Matrix(weight.data_ptr(), weight.dtype == torch.bfloat16, depth, columns, NULL)


def _router(spec: RouterSpec) -> _native.Router:
    return _native.Router(
        spec.num_experts,
        spec.top_k,
        spec.num_groups,
        spec.topk_groups,
        SCORINGS[spec.scoring],
        spec.renormalise,
        spec.scale,
    )
