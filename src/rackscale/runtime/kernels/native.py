"""The kernels in C++ (csrc/), for fp32 on the CPU. What they do not take, the reference does.

Tensors are handed over as addresses, so this module is where shapes, dtypes and layouts are made sure of.
"""

import torch
from torch import Tensor

from rackscale.runtime import _native
from rackscale.runtime.batch import Decodes
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.comm.shared_memory import SharedAllToAll
from rackscale.runtime.kernels.descriptors import Descriptors, address
from rackscale.runtime.kernels.interface import Decoder, Kernels
from rackscale.runtime.kernels.native_decoder import NativeDecoder
from rackscale.runtime.kernels.reference import Reference
from rackscale.runtime.kernels.weights import ExpertWeights, Linear, MlpWeights, ModelWeights
from rackscale.runtime.precision import Products
from rackscale.runtime.rope import Rope
from rackscale.specs import RouterSpec


def _takes(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


class Native(Reference):
    """See `Kernels`. Falls back to the reference on other dtypes and devices."""

    name = "native"
    keeps_bf16 = True
    packs = True

    def __init__(self, products: Products = Products.FP32) -> None:
        self._descriptors = Descriptors(products)

    def rounding_to(self, products: Products) -> Kernels:
        """Where weights are packed."""
        return Native(products)

    def decoder(self, weights: ModelWeights, rope: Rope, ranks: AllToAll | None) -> Decoder | None:
        """In fp32 on the CPU, with experts here or behind shared memory."""
        if not _takes(weights.final_norm) or not isinstance(ranks, SharedAllToAll | None):
            return None
        return NativeDecoder(weights, rope, ranks, self._descriptors)

    def rms_norm(self, x_TH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        """Rows where they are."""
        if not _takes(x_TH) or x_TH.stride(-1) != 1:
            return super().rms_norm(x_TH, weight_H, eps)
        out_TH = torch.empty(x_TH.shape)
        _native.rms_norm(
            x_TH.data_ptr(),
            x_TH.stride(0),
            weight_H.data_ptr(),
            len(x_TH),
            x_TH.shape[1],
            eps,
            out_TH.data_ptr(),
        )
        return out_TH

    def rotate(self, x_TAN: Tensor, rope: Rope, positions_T: Tensor) -> None:
        """Heads where they are."""
        if not _takes(x_TAN) or x_TAN.stride(-1) != 1:
            super().rotate(x_TAN, rope, positions_T)
            return
        _native.rotate(
            x_TAN.data_ptr(),
            x_TAN.stride(0),
            x_TAN.stride(1),
            rope.cos.data_ptr(),
            rope.sin.data_ptr(),
            positions_T.data_ptr(),
            x_TAN.shape[0],
            x_TAN.shape[1],
            x_TAN.shape[2] // 2,
        )

    def linear(self, x_TH: Tensor, layer: Linear) -> Tensor:
        """Widens bf16 while it multiplies."""
        if not _takes(x_TH) or x_TH.stride(-1) != 1:
            return super().linear(x_TH, layer)
        out_TN = torch.empty(len(x_TH), layer.num_outputs)
        _native.linear(
            x_TH.data_ptr(),
            x_TH.stride(0),
            len(x_TH),
            self._descriptors.matrix(layer),
            out_TN.data_ptr(),
            torch.get_num_threads(),
        )
        return out_TN

    def mlp(self, x_TH: Tensor, mlp: MlpWeights) -> Tensor:
        """In one call where it is packed."""
        if not mlp.is_packed:
            return super().mlp(x_TH, mlp)
        x_TH = x_TH.contiguous()
        out_TH = torch.empty(len(x_TH), mlp.down.num_outputs)
        _native.packed_mlp(
            x_TH.data_ptr(),
            x_TH.shape[1],
            len(x_TH),
            self._descriptors.packed(mlp.gate_up),
            self._descriptors.packed(mlp.down),
            False,  # noqa: FBT003 (C++ names no arguments)
            out_TH.data_ptr(),
            out_TH.shape[1],
            torch.get_num_threads(),
        )
        return out_TH

    def swiglu(self, gate_up_TN: Tensor) -> Tensor:
        """In place of the gate."""
        if not _takes(gate_up_TN) or not gate_up_TN.is_contiguous():
            return super().swiglu(gate_up_TN)
        width = gate_up_TN.shape[1] // 2
        _native.swiglu(gate_up_TN.data_ptr(), len(gate_up_TN), width)
        return gate_up_TN[:, :width]

    def route(
        self, logits_TE: Tensor, correction_E: Tensor | None, router: RouterSpec
    ) -> tuple[Tensor, Tensor]:
        """The same choice as the reference's; among equal scores the lower expert."""
        if not _takes(logits_TE):
            return super().route(logits_TE, correction_E, router)
        logits_TE = logits_TE.contiguous()
        weights_TK = torch.empty(len(logits_TE), router.top_k)
        experts_TK = torch.empty(len(logits_TE), router.top_k, dtype=torch.int32)
        _native.route(
            logits_TE.data_ptr(),
            address(correction_E),
            len(logits_TE),
            self._descriptors.router(router),
            weights_TK.data_ptr(),
            experts_TK.data_ptr(),
        )
        return weights_TK, experts_TK

    def experts(
        self, hidden_TH: Tensor, weights_TK: Tensor, experts_TK: Tensor, experts: ExpertWeights
    ) -> Tensor:
        """Gate, up, activation, down and the weighted sum in one pass over each expert."""
        if not _takes(hidden_TH):
            return super().experts(hidden_TH, weights_TK, experts_TK, experts)
        hidden_TH, weights_TK = hidden_TH.contiguous(), weights_TK.contiguous()
        out_TH = torch.empty_like(hidden_TH)
        _native.experts(
            hidden_TH.data_ptr(),
            weights_TK.data_ptr(),
            experts_TK.contiguous().data_ptr(),
            len(hidden_TH),
            experts_TK.shape[1],
            self._descriptors.experts(experts),
            out_TH.data_ptr(),
            torch.get_num_threads(),
        )
        return out_TH

    def mla_decode(
        self, query_DAW: Tensor, cache_SW: Tensor, decodes: Decodes, rank: int, scale: float
    ) -> Tensor:
        """Reads latents where they are, block by block."""
        if not _takes(query_DAW):
            return super().mla_decode(query_DAW, cache_SW, decodes, rank, scale)
        query_DAW = query_DAW.contiguous()
        num_decodes, num_heads, width = query_DAW.shape
        out_DAR = torch.empty(num_decodes, num_heads, rank)
        _native.mla_decode(
            query_DAW.data_ptr(),
            cache_SW.data_ptr(),
            decodes.rows.ctypes.data,
            decodes.lengths.ctypes.data,
            decodes.table.ctypes.data,
            num_decodes,
            decodes.table.shape[1],
            decodes.block_size,
            num_heads,
            width,
            rank,
            scale,
            out_DAR.data_ptr(),
            torch.get_num_threads(),
        )
        return out_DAR

    def gqa_decode(
        self,
        query_DAN: Tensor,
        keys_SGN: Tensor,
        values_SGN: Tensor,
        decodes: Decodes,
        scale: float,
        window: int | None,
        sinks_A: Tensor | None,
    ) -> Tensor:
        """Reads keys and values where they are, block by block."""
        if not _takes(query_DAN):
            return super().gqa_decode(query_DAN, keys_SGN, values_SGN, decodes, scale, window, sinks_A)
        query_DAN = query_DAN.contiguous()
        num_decodes, num_heads, head_dim = query_DAN.shape
        out_DAN = torch.empty_like(query_DAN)
        _native.gqa_decode(
            query_DAN.data_ptr(),
            keys_SGN.data_ptr(),
            values_SGN.data_ptr(),
            decodes.rows.ctypes.data,
            decodes.lengths.ctypes.data,
            decodes.table.ctypes.data,
            num_decodes,
            decodes.table.shape[1],
            decodes.block_size,
            num_heads,
            keys_SGN.shape[1],
            head_dim,
            scale,
            window or 0,
            address(sinks_A),
            out_DAN.data_ptr(),
            torch.get_num_threads(),
        )
        return out_DAN
