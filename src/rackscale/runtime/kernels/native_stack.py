"""All layers of a model in one call into C++ (csrc/layers.cpp)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rackscale.runtime import _native
from rackscale.runtime.batch import Decodes
from rackscale.runtime.kernels.descriptors import Descriptors
from rackscale.runtime.kernels.weights import LayerWeights, MlaWeights, MoeWeights
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.rope import Rope


class NativeStack:
    """See `Stack`. Keeps what it points into."""

    def __init__(
        self, layers: Sequence[LayerWeights], rope: Rope, eps: float, descriptors: Descriptors
    ) -> None:
        self._layers, self._rope = tuple(layers), rope
        hidden = len(layers[0].attention_norm)
        self._stack = _native.Stack(hidden, eps, rope.cos.data_ptr(), rope.sin.data_ptr())
        moes = [layer.ffn for layer in layers if isinstance(layer.ffn, MoeWeights)]
        self._shape = (len(moes), moes[0].spec.router.top_k if moes else 0)
        for layer in layers:
            attention, ffn = layer.attention, layer.ffn
            self._stack.add(
                layer.attention_norm.data_ptr(),
                descriptors.mla(attention, eps)
                if isinstance(attention, MlaWeights)
                else descriptors.gqa(attention, eps),
                layer.ffn_norm.data_ptr(),
                descriptors.moe(ffn) if isinstance(ffn, MoeWeights) else descriptors.mlp(ffn),
            )

    def __call__(self, x_DH: Tensor, cache: KvCache, decodes: Decodes) -> Tensor:
        """x: fp32 and contiguous."""
        num_moes, top_k = self._shape
        chosen_MDK = torch.empty(num_moes, len(decodes), top_k, dtype=torch.int32)
        self._stack.decode(
            x_DH.data_ptr(),
            decodes.rows.ctypes.data,
            decodes.lengths.ctypes.data,
            decodes.table.ctypes.data,
            len(decodes),
            decodes.table.shape[1],
            decodes.block_size,
            [part.data_ptr() for layer in cache.layers for part in layer],
            chosen_MDK.data_ptr(),
            torch.get_num_threads(),
        )
        return chosen_MDK
