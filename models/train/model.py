"""A DeepSeek-V3 language model for training on a CPU.

The arithmetic is that of the published architecture (arXiv 2412.19437): multi-head latent attention without
a query LoRA, a sigmoid router whose bias picks experts and does not weight them, one shared expert, and a
dense first layer. A step's tokens are sorted by expert, so that each expert is two plain products.

Axes: B sequences, S positions, T = B*S tokens, H hidden, E experts, K experts per token, C tokens per expert.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Widths in elements, named as config.json names them. Queries and values are equally wide, as
    the fused attention kernel wants."""

    vocab_size: int = 2048
    hidden_size: int = 256
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 48
    qk_rope_head_dim: int = 16
    v_head_dim: int = 64
    intermediate_size: int = 512
    moe_intermediate_size: int = 32
    n_routed_experts: int = 64
    num_experts_per_tok: int = 6
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 1024


class RmsNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last axis; cos and sin are [S, dim / 2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)


class Attention(nn.Module):
    """Multi-head latent attention; the latent is what a server would cache."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        heads, qk = s.num_attention_heads, s.qk_nope_head_dim + s.qk_rope_head_dim
        self.q_proj = nn.Linear(s.hidden_size, heads * qk, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(s.hidden_size, s.kv_lora_rank + s.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RmsNorm(s.kv_lora_rank, s.rms_norm_eps)
        self.kv_b_proj = nn.Linear(s.kv_lora_rank, heads * (s.qk_nope_head_dim + s.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * s.v_head_dim, s.hidden_size, bias=False)

    def forward(self, x_BSH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        s, (batch, length, _) = self.s, x_BSH.shape
        heads = s.num_attention_heads
        q = self.q_proj(x_BSH).view(batch, length, heads, -1).transpose(1, 2)
        q_nope, q_rope = q.split((s.qk_nope_head_dim, s.qk_rope_head_dim), -1)
        latent, k_rope = self.kv_a_proj_with_mqa(x_BSH).split((s.kv_lora_rank, s.qk_rope_head_dim), -1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(batch, length, heads, -1)
        k_nope, v = kv.transpose(1, 2).split((s.qk_nope_head_dim, s.v_head_dim), -1)
        k_rope = rotate(k_rope.unsqueeze(1), cos, sin).expand(-1, heads, -1, -1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin).to(q_nope.dtype)), -1)
        k = torch.cat((k_nope, k_rope.to(k_nope.dtype)), -1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Moe(nn.Module):
    """Routed experts and a shared one. `load_E` holds the last batch's tokens by expert, `share_E` its mean
    scores."""

    load_E: Tensor
    share_E: Tensor

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        experts, hidden, width = s.n_routed_experts, s.hidden_size, s.moe_intermediate_size
        self.router = nn.Parameter(torch.randn(experts, hidden) * hidden**-0.5)
        self.register_buffer("correction_E", torch.zeros(experts))
        self.register_buffer("load_E", torch.zeros(experts), persistent=False)
        self.gate_up = nn.Parameter(torch.randn(experts, 2 * width, hidden) * hidden**-0.5)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) * width**-0.5)
        self.shared = Mlp(hidden, width)

    def forward(self, x_BSH: Tensor) -> Tensor:
        x_TH = x_BSH.reshape(-1, x_BSH.shape[-1])
        weights_TK, experts_TK = self.route(x_TH)
        routed = self.experts(x_TH, weights_TK, experts_TK)
        return routed.view_as(x_BSH) + self.shared(x_BSH)

    def route(self, x_TH: Tensor) -> tuple[Tensor, Tensor]:
        """Weights that sum to one, and the experts they belong to, both [T, K]."""
        with torch.autocast("cpu", enabled=False):
            scores_TE = F.linear(x_TH.float(), self.router).sigmoid()
            self.share_E = (scores_TE / scores_TE.sum(-1, keepdim=True)).mean(0)
            experts_TK = (scores_TE + self.correction_E).topk(self.s.num_experts_per_tok, -1).indices
            weights_TK = scores_TE.gather(1, experts_TK)
            return weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20), experts_TK

    def imbalance(self) -> Tensor:
        """1 where all experts have the same load and the same scores, more otherwise; differentiable by
        the scores (Switch Transformer, arXiv 2101.03961, eq. 4)."""
        return (self.load_E / self.load_E.mean() * self.share_E).sum()

    def experts(self, x_TH: Tensor, weights_TK: Tensor, experts_TK: Tensor) -> Tensor:
        """The weighted sum of each token's experts, [T, H]."""
        flat = experts_TK.flatten()
        order = flat.argsort(stable=True)
        counts_E = torch.bincount(flat, minlength=self.s.n_routed_experts)
        self.load_E = counts_E.float()
        with torch.autocast("cpu", enabled=False):
            return RoutedExperts.apply(
                x_TH.float(), weights_TK.flatten()[order], self.gate_up, self.down,
                order // self.s.num_experts_per_tok, counts_E.tolist(),
            )  # fmt: skip


class RoutedExperts(torch.autograd.Function):
    """Sorted rows through their experts, in fp32: at these widths its products are the fastest.

    x [T, H]; weights [R], one for each row; gate_up [E, 2I, H]; down [E, H, I]; tokens [R], the token of
    each row; counts: rows of each expert, in order. Gives [T, H].
    """

    @staticmethod
    def forward(ctx, x, weights, gate_up, down, tokens, counts):  # noqa: ANN001, ANN205
        rows = x.index_select(0, tokens)
        inner = rows.new_empty(len(rows), gate_up.shape[1])
        out = torch.empty_like(rows)
        width = gate_up.shape[1] // 2
        for part, expert in parts(counts):
            torch.mm(rows[part], gate_up[expert].mT, out=inner[part])
        hidden = F.silu(inner[:, :width]) * inner[:, width:]
        for part, expert in parts(counts):
            torch.mm(hidden[part], down[expert].mT, out=out[part])
        ctx.save_for_backward(rows, weights, gate_up, down, tokens, inner, hidden, out)
        ctx.counts = counts
        return torch.zeros_like(x).index_add_(0, tokens, out * weights[:, None])

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        rows, weights, gate_up, down, tokens, inner, hidden, out = ctx.saved_tensors
        width = gate_up.shape[1] // 2
        grad_rows = grad.index_select(0, tokens)
        grad_weights = (grad_rows * out).sum(-1)
        grad_rows *= weights[:, None]
        grad_hidden, grad_down = torch.empty_like(hidden), torch.zeros_like(down)
        for part, expert in parts(ctx.counts):
            torch.mm(grad_rows[part], down[expert], out=grad_hidden[part])
            torch.mm(grad_rows[part].mT, hidden[part], out=grad_down[expert])
        gate, up = inner[:, :width], inner[:, width:]
        sigmoid = gate.sigmoid()
        grad_inner = torch.cat(
            (grad_hidden * up * sigmoid * (1 + gate * (1 - sigmoid)), grad_hidden * gate * sigmoid), -1
        )
        grad_gate_up = torch.zeros_like(gate_up)
        for part, expert in parts(ctx.counts):
            torch.mm(grad_inner[part].mT, rows[part], out=grad_gate_up[expert])
            torch.mm(grad_inner[part], gate_up[expert], out=grad_rows[part])
        grad_x = torch.zeros_like(grad).index_add_(0, tokens, grad_rows)
        return grad_x, grad_weights, grad_gate_up, grad_down, None, None


def parts(counts: list[int]) -> list[tuple[slice, int]]:
    """The rows of each expert that has any."""
    found, start = [], 0
    for expert, count in enumerate(counts):
        if count:
            found.append((slice(start, start + count), expert))
        start += count
    return found


class Layer(nn.Module):
    """Attention and a feed-forward part, each behind a norm and added to the residual."""

    def __init__(self, s: Shape, *, moe: bool, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(s.hidden_size, s.rms_norm_eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = RmsNorm(s.hidden_size, s.rms_norm_eps)
        self.mlp = Moe(s) if moe else Mlp(s.hidden_size, s.intermediate_size)
        self.dropout = dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self._drop(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + self._drop(self.mlp(self.post_attention_layernorm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Model(nn.Module):
    """The whole language model; the head is the embedding."""

    def __init__(self, s: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.s = s
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=s.hidden_size**-0.5)
        self.layers = nn.ModuleList(
            Layer(s, moe=index > 0, dropout=dropout) for index in range(s.num_hidden_layers)
        )
        self.norm = RmsNorm(s.hidden_size, s.rms_norm_eps)
        pairs = torch.arange(0, s.qk_rope_head_dim, 2) / s.qk_rope_head_dim
        angles = torch.outer(torch.arange(s.max_position_embeddings), s.rope_theta**-pairs)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Logits [B, S, V]."""
        length = ids_BS.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.embed_tokens(ids_BS)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def moe_layers(self) -> list[Moe]:
        """The layers that have experts, in order."""
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, Moe)]
