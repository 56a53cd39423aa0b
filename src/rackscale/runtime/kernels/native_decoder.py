"""A whole model in one call into C++ (csrc/layers.cpp)."""

import numpy as np
import torch
from torch import Tensor

from rackscale.runtime import _native
from rackscale.runtime.batch import Batch
from rackscale.runtime.comm.shared_memory import SharedAllToAll
from rackscale.runtime.kernels.descriptors import Descriptors
from rackscale.runtime.kernels.interface import AfterLayer
from rackscale.runtime.kernels.weights import Linear, MlaWeights, ModelWeights, MoeWeights
from rackscale.runtime.kv_cache import KvCache
from rackscale.runtime.rope import Rope


class NativeDecoder:
    """See `Decoder`. Keeps what it points into."""

    def __init__(
        self,
        weights: ModelWeights,
        rope: Rope,
        ranks: SharedAllToAll | None,
        descriptors: Descriptors,
    ) -> None:
        self._weights, self._rope, self._ranks = weights, rope, ranks
        native = None if ranks is None else ranks.native
        num_moes = 0
        self._model = _native.Model(
            hidden=len(weights.final_norm),
            eps=weights.eps,
            embed=descriptors.matrix(Linear(weights.embed)),
            cos=rope.cos.data_ptr(),
            sin=rope.sin.data_ptr(),
            final_norm=weights.final_norm.data_ptr(),
            head=descriptors.matrix(weights.head),
        )
        for layer in weights.layers:
            attention, ffn = layer.attention, layer.ffn
            if isinstance(ffn, MoeWeights):
                native_ffn: _native.Moe | _native.Mlp = descriptors.moe(ffn, native, num_moes)
                num_moes += 1
            else:
                native_ffn = descriptors.mlp(ffn)
            self._model.add(
                layer.attention_norm.data_ptr(),
                descriptors.mla(attention)
                if isinstance(attention, MlaWeights)
                else descriptors.gqa(attention),
                layer.ffn_norm.data_ptr(),
                native_ffn,
            )
        moes = [layer.ffn for layer in weights.layers if isinstance(layer.ffn, MoeWeights)]
        self._loads_shape = (len(moes), moes[0].spec.router.num_experts if moes else 0)
        self._vocab_size = weights.head.num_outputs

    def __call__(
        self, batch: Batch, cache: KvCache, after_layer: AfterLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """In fp32. A chunk's tokens are rows like others, each as long as its row is with it: so a token's
        result depends neither on its company nor on how its sequence is cut into steps."""
        logits_SV = torch.empty(len(batch.sampled), self._vocab_size)
        loads_ME = torch.zeros(self._loads_shape, dtype=torch.int32)
        self._model.decode(
            batch.tokens,
            batch.row_of,
            batch.position_of + np.int32(1),
            cache.table,
            cache.block_size,
            [part.data_ptr() for layer in cache.layers for part in layer],
            batch.sampled,
            logits_SV.data_ptr(),
            loads_ME.data_ptr(),
            torch.get_num_threads(),
            after_layer,
        )
        return logits_SV, loads_ME
