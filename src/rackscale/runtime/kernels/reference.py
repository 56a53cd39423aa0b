"""The kernels in plain torch: slow, on any device, and the oracle of the others."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rackscale.runtime.batch import Decodes
from rackscale.runtime.comm.all_to_all import AllToAll
from rackscale.runtime.kernels.interface import Decoder, Kernels
from rackscale.runtime.kernels.weights import ExpertWeights, Linear, MlpWeights, ModelWeights
from rackscale.runtime.precision import Products
from rackscale.runtime.rope import Rope
from rackscale.specs import RouterSpec, Scoring


class Reference:
    """See `Kernels`."""

    name = "reference"
    keeps_bf16 = False
    packs = False

    def rounding_to(self, products: Products) -> Kernels:  # noqa: ARG002 (others do)
        """These compute in the dtype that they are given."""
        return self

    def decoder(
        self,
        weights: ModelWeights,  # noqa: ARG002 (others have a decoder)
        rope: Rope,  # noqa: ARG002 (the same)
        ranks: AllToAll | None,  # noqa: ARG002 (the same)
    ) -> Decoder | None:
        """None: what a model is made of is the oracle."""
        return None

    def rms_norm(self, x_TH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        """Torch's own."""
        return F.rms_norm(x_TH, x_TH.shape[-1:], weight_H, eps)

    def rotate(self, x_TAN: Tensor, rope: Rope, positions_T: Tensor) -> None:
        """In fp32, whatever x is."""
        cos, sin = rope.cos[positions_T].unsqueeze(1), rope.sin[positions_T].unsqueeze(1)
        first, second = x_TAN.float().chunk(2, dim=-1)
        x_TAN.copy_(torch.cat((first * cos - second * sin, second * cos + first * sin), -1))

    def linear(self, x_TH: Tensor, layer: Linear) -> Tensor:
        """Torch's own."""
        weight = layer.plain.to(x_TH.dtype)
        return x_TH @ weight if layer.bias is None else torch.addmm(layer.bias, x_TH, weight)

    def mlp(self, x_TH: Tensor, mlp: MlpWeights) -> Tensor:
        """Of linear layers."""
        return self.linear(self.swiglu(self.linear(x_TH, mlp.gate_up)), mlp.down)

    def swiglu(self, gate_up_TN: Tensor) -> Tensor:
        """silu(gate) * up, [T, N / 2], which may be part of wider rows. May overwrite what it is given."""
        gate, up = gate_up_TN.chunk(2, dim=-1)
        return F.silu(gate) * up

    def route(
        self, logits_TE: Tensor, correction_E: Tensor | None, router: RouterSpec
    ) -> tuple[Tensor, Tensor]:
        """Source: transformers' routers of the families named in `Scoring`."""
        if router.scoring == Scoring.TOPK_SOFTMAX:
            best_TK, experts_TK = logits_TE.topk(router.top_k, dim=-1)
            weights_TK = best_TK.softmax(-1)
        else:
            sigmoid = router.scoring == Scoring.SIGMOID
            scores_TE = logits_TE.sigmoid() if sigmoid else logits_TE.softmax(-1)
            choice_TE = scores_TE if correction_E is None else scores_TE + correction_E
            if router.num_groups > 1:
                choice_TE = _only_best_groups(choice_TE, router)
            experts_TK = choice_TE.topk(router.top_k, dim=-1).indices
            weights_TK = scores_TE.gather(1, experts_TK)
        if router.renormalise:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
        return weights_TK * router.scale, experts_TK.int()

    def experts(
        self, hidden_TH: Tensor, weights_TK: Tensor, experts_TK: Tensor, experts: ExpertWeights
    ) -> Tensor:
        """Tokens sorted by expert, then one product for each expert that has any."""
        chosen = experts_TK.flatten()
        order = chosen.argsort(stable=True)
        order = order[chosen[order] >= 0]
        tokens = order // experts_TK.shape[1]
        rows = hidden_TH[tokens]
        out = torch.empty_like(rows)
        counts = torch.bincount(chosen[order], minlength=len(experts.plain[1])).tolist()
        start = 0
        for expert, count in enumerate(counts):
            if count:
                part = slice(start, start + count)
                out[part] = _expert(rows[part], expert, experts)
                start += count
        out = out * weights_TK.flatten()[order, None].to(out.dtype)
        return torch.zeros_like(hidden_TH).index_add_(0, tokens, out)

    def mla_decode(
        self, query_DAW: Tensor, cache_SW: Tensor, decodes: Decodes, rank: int, scale: float
    ) -> Tensor:
        """Gathers each row's latents into one padded tensor."""
        context_DLW, masked_DL = _gather(cache_SW, decodes)
        scores_DAL = torch.einsum("daw,dlw->dal", query_DAW, context_DLW) * scale
        scores_DAL = scores_DAL.masked_fill(masked_DL[:, None], -torch.inf)
        weights_DAL = scores_DAL.softmax(-1, torch.float32).to(scores_DAL.dtype)
        return torch.einsum("dal,dlr->dar", weights_DAL, context_DLW[..., :rank])

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
        """Gathers each row's keys and values into padded tensors."""
        keys_DLGN, masked_DL = _gather(keys_SGN, decodes)
        values_DLGN, _ = _gather(values_SGN, decodes)
        num_decodes, _, width = query_DAN.shape
        if window is not None:
            lengths = torch.from_numpy(decodes.lengths).to(query_DAN.device)
            positions = torch.arange(masked_DL.shape[1], device=query_DAN.device)
            masked_DL = masked_DL | (positions < lengths[:, None] - window)
        query = query_DAN.view(num_decodes, keys_SGN.shape[1], -1, width)
        scores = torch.einsum("dgan,dlgn->dgal", query, keys_DLGN) * scale
        scores = scores.masked_fill(masked_DL[:, None, None], -torch.inf)
        weights = softmax_with_sinks(scores.flatten(1, 2), sinks_A).view_as(scores)
        return torch.einsum("dgal,dlgn->dgan", weights, values_DLGN).reshape(query_DAN.shape)


def softmax_with_sinks(scores: Tensor, sinks_A: Tensor | None) -> Tensor:
    """Softmax of scores [..., A, L], or [A, ..., L] viewed so, with one more logit a head that takes
    weight and has no value. In fp32, whatever the scores are."""
    if sinks_A is None:
        return scores.softmax(-1, torch.float32).to(scores.dtype)
    sink = sinks_A.to(scores.dtype)[:, None].expand(*scores.shape[:-1], 1)
    return torch.cat((scores, sink), -1).softmax(-1, torch.float32)[..., :-1].to(scores.dtype)


def _only_best_groups(choice_TE: Tensor, router: RouterSpec) -> Tensor:
    """Scores outside of the best groups are gone. A group is as good as its two best experts."""
    groups_TGE: Tensor = choice_TE.unflatten(-1, (router.num_groups, -1))
    score_TG = groups_TGE.topk(2, dim=-1).values.sum(-1)
    kept = score_TG.topk(router.topk_groups, dim=-1).indices
    dropped_TG = torch.ones_like(score_TG, dtype=torch.bool).scatter_(1, kept, value=False)
    return groups_TGE.masked_fill(dropped_TG[..., None], -torch.inf).flatten(1)


def expert_inner(rows: Tensor, expert: int, experts: ExpertWeights) -> Tensor:
    """What an expert multiplies with its last matrix, [rows, width]."""
    inner = rows @ experts.plain[0][expert].to(rows.dtype)
    if experts.gate_up_bias is not None:
        inner = inner + experts.gate_up_bias[expert].to(rows.dtype)
    gate, up = inner.chunk(2, dim=-1)
    if experts.clamped:
        gate = gate.clamp(max=experts.moe.swiglu_limit)
        up = up.clamp(-experts.moe.swiglu_limit, experts.moe.swiglu_limit)
        return gate * torch.sigmoid(experts.moe.swiglu_alpha * gate) * (up + 1)
    return F.silu(gate) * up


def _expert(rows: Tensor, expert: int, experts: ExpertWeights) -> Tensor:
    inner = expert_inner(rows, expert, experts)
    out = inner @ experts.plain[1][expert].to(rows.dtype)
    if experts.down_bias is not None:
        out = out + experts.down_bias[expert].to(rows.dtype)
    return out


def _gather(cache: Tensor, decodes: Decodes) -> tuple[Tensor, Tensor]:
    """Each row's slots [D, L, ...], padded to the longest, and which of them are padding [D, L]."""
    size = decodes.block_size
    longest = int(decodes.lengths.max(initial=1))
    blocks = decodes.table[decodes.rows, : -(-longest // size)]
    slots = (blocks[..., None].astype(np.int64) * size + np.arange(size)).reshape(len(blocks), -1)
    padding = np.arange(longest) >= decodes.lengths[:, None]
    gathered = cache[torch.from_numpy(slots[:, :longest]).to(cache.device)]
    return gathered, torch.from_numpy(padding).to(cache.device)
