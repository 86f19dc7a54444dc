"""The model written plainly from docs/nsa.md: masked dense attention, any setting, fp32 or fp64.

This file is the yardstick: the fast training path and the C++ engine are compared with it. It is slow on
purpose: every branch is one masked softmax over all keys. Parameter names are those of
docs/checkpoint_format.md, so a state_dict is a checkpoint.

Shapes: B batch, T tokens, H query heads, K KV heads, G = H / K, C compressed rows, N selection blocks.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .config import ModelSettings, NsaSettings


# ---- small pieces ----------------------------------------------------------------------------------


def rope(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotates pairs (c, c + d/2) of x [..., len(positions), d] by positions * theta^(-2c/d).

    The frequencies are fp32 numbers, as in every engine; the angles are exact products of them.
    """
    half = x.shape[-1] // 2
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    frequency = theta ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angle = positions.to(torch.float64)[:, None] * frequency.to(torch.float32).to(torch.float64)
    cos, sin = angle.cos().to(wide), angle.sin().to(wide)
    a, b = x[..., :half].to(wide), x[..., half:].to(wide)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def masked_attention(q, k, v, mask):
    """Softmax attention of q [B,H,T,d] over k, v [B,K,S,d]; mask [T,S] or [B,H,T,S], True = visible.

    Returns the output [B,H,T,d_v] and the probabilities [B,H,T,S]. A query that sees nothing gets zeros.
    """
    group_size = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(group_size, dim=1)
    v = v.repeat_interleave(group_size, dim=1)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = (q.to(wide) @ k.to(wide).transpose(-1, -2)) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask, -math.inf)
    top = scores.amax(dim=-1, keepdim=True) if scores.shape[-1] else scores.new_zeros(*scores.shape[:-1], 1)
    weights = torch.exp(scores - top.clamp(min=torch.finfo(wide).min))
    total = weights.sum(dim=-1, keepdim=True)
    probabilities = weights / torch.where(total == 0, torch.ones_like(total), total)
    return (probabilities @ v.to(wide)).to(v.dtype), probabilities


def causal_mask(num_tokens: int, device=None) -> torch.Tensor:
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()


def window_mask(num_tokens: int, window_tokens: int, device=None) -> torch.Tensor:
    """Tokens [max(0, t - w + 1), t]."""
    mask = causal_mask(num_tokens, device)
    return mask & ~causal_mask(num_tokens, device).tril(-window_tokens)


# ---- compression -----------------------------------------------------------------------------------


def num_rows(num_tokens: int, nsa: NsaSettings) -> int:
    """C(s): complete compressed rows over s tokens."""
    if num_tokens < nsa.span_tokens:
        return 0
    return (num_tokens - nsa.span_tokens) // nsa.span_stride + 1


def row_mask(num_tokens: int, nsa: NsaSettings, device=None) -> torch.Tensor:
    """[T, C]: row i is visible to t iff i*d + l - 1 <= t."""
    t = torch.arange(num_tokens, device=device)
    row = torch.arange(num_rows(num_tokens, nsa), device=device)
    return row[None, :] * nsa.span_stride + nsa.span_tokens - 1 <= t[:, None]


class HeadLinear(nn.Module):
    """One weight matrix per KV head: x [B, K, C, in] -> [B, K, C, out], no bias."""

    def __init__(self, num_heads: int, num_out: int, num_in: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_heads, num_out, num_in) / math.sqrt(num_in))

    def forward(self, x):
        return torch.einsum("bkci,koi->bkco", x, self.weight)


class PhiMean(nn.Module):
    def forward(self, spans):  # [B, K, C, l, d]
        return spans.mean(dim=-2)


class PhiWeightedPool(nn.Module):
    def __init__(self, num_kv_heads: int, span_tokens: int):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(num_kv_heads, span_tokens) * 2 / span_tokens)

    def forward(self, spans):
        return torch.einsum("bkcld,kl->bkcd", spans, self.weight)


class PhiLinear(HeadLinear):
    def __init__(self, num_kv_heads: int, span_tokens: int, dim: int):
        super().__init__(num_kv_heads, dim, span_tokens * dim)

    def forward(self, spans):
        return super().forward(spans.flatten(-2))  # token-major: i * d + c


class PhiMlp(nn.Module):
    def __init__(self, num_kv_heads: int, span_tokens: int, dim: int, hidden: int):
        super().__init__()
        self.fc1 = HeadLinear(num_kv_heads, hidden, span_tokens * dim)
        self.fc2 = HeadLinear(num_kv_heads, dim, hidden)

    def forward(self, spans):
        return self.fc2(F.gelu(self.fc1(spans.flatten(-2))))


def make_phi(nsa: NsaSettings, num_kv_heads: int, dim: int) -> nn.Module:
    if nsa.phi == "mean":
        return PhiMean()
    if nsa.phi == "weighted_pool":
        return PhiWeightedPool(num_kv_heads, nsa.span_tokens)
    if nsa.phi == "linear":
        return PhiLinear(num_kv_heads, nsa.span_tokens, dim)
    return PhiMlp(num_kv_heads, nsa.span_tokens, dim, nsa.phi_hidden)


def compress(x, phi, position, nsa: NsaSettings):
    """x [B, K, T, d] -> rows [B, K, C, d]; position is [K, l, d] or None."""
    if num_rows(x.shape[2], nsa) == 0:
        return x[:, :, :0]
    spans = x.unfold(2, nsa.span_tokens, nsa.span_stride).transpose(-1, -2)  # [B, K, C, l, d]
    if position is not None:
        spans = spans + position[:, None]
    return phi(spans)


# ---- selection -------------------------------------------------------------------------------------


def block_importance(probabilities, num_kv_heads: int, num_blocks: int, nsa: NsaSettings):
    """p [B,H,T,C] of the compression branch -> importance [B,K,T,N], summed over the group's heads."""
    per_group = probabilities.unflatten(1, (num_kv_heads, -1)).sum(dim=2)
    a, e = nsa.block_tokens // nsa.span_stride, nsa.span_tokens // nsa.span_stride
    weight = per_group.new_zeros(per_group.shape[-1], num_blocks)
    for j in range(num_blocks):
        for k in range(a + e - 1):
            row = a * j - (e - 1) + k
            if 0 <= row < weight.shape[0]:
                weight[row, j] = min(k + 1, a, e, a + e - 1 - k)
    return per_group @ weight


def forced_blocks(num_tokens: int, num_blocks: int, nsa: NsaSettings, device=None):
    """Two masks [T, N]: which blocks are forced, and which exist for t (blocks 0..b)."""
    own = (torch.arange(num_tokens, device=device) // nsa.block_tokens)[:, None]
    block = torch.arange(num_blocks, device=device)[None, :]
    exists = block <= own
    forced = (block < nsa.num_initial) | (block > own - nsa.num_local)
    return forced & exists, exists


def choose_blocks(importance, nsa: NsaSettings):
    """importance [B,K,T,N] -> mask [B,K,T,N] of the chosen blocks; ties go to the lower index."""
    num_tokens, num_blocks = importance.shape[-2:]
    forced, exists = forced_blocks(num_tokens, num_blocks, nsa, importance.device)
    ranked = importance.detach().masked_fill(forced, math.inf).masked_fill(~exists, -math.inf)
    order = ranked.sort(dim=-1, descending=True, stable=True).indices[..., : nsa.num_selected]
    chosen = torch.zeros_like(importance, dtype=torch.bool).scatter(-1, order, True)
    return chosen & exists


def selected_mask(chosen, block_tokens: int, group_size: int):
    """chosen [B,K,T,N] -> token mask [B,H,T,T]: tokens of chosen blocks, not after t."""
    num_tokens = chosen.shape[2]
    tokens = chosen.repeat_interleave(block_tokens, dim=-1)[..., :num_tokens]
    tokens = tokens & causal_mask(num_tokens, chosen.device)
    return tokens.repeat_interleave(group_size, dim=1)


# ---- layers ----------------------------------------------------------------------------------------


class Branch(nn.Module):
    """The K and V projections of one branch."""

    def __init__(self, model: ModelSettings):
        super().__init__()
        heads = model.num_key_value_heads
        self.k_proj = nn.Linear(model.hidden_size, heads * model.head_dim, bias=False)
        self.v_proj = nn.Linear(model.hidden_size, heads * model.v_head_dim, bias=False)


class NsaAttention(nn.Module):
    """One NSA layer. forward: x [B, T, hidden] -> [B, T, hidden]."""

    def __init__(self, model: ModelSettings):
        super().__init__()
        self.model, nsa = model, model.nsa
        heads, kv_heads = model.num_attention_heads, model.num_key_value_heads
        self.q_proj = nn.Linear(model.hidden_size, heads * model.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * model.v_head_dim, model.hidden_size, bias=False)
        self.g_proj = nn.Linear(model.hidden_size, heads * 3, bias=False)
        if nsa.shared_kv:
            self.k_proj = nn.Linear(model.hidden_size, kv_heads * model.head_dim, bias=False)
            self.v_proj = nn.Linear(model.hidden_size, kv_heads * model.v_head_dim, bias=False)
            self.cmp = nn.Module()
        else:
            self.cmp, self.sel, self.win = Branch(model), Branch(model), Branch(model)
        self.cmp.phi_k = make_phi(nsa, kv_heads, model.head_dim)
        self.cmp.phi_v = make_phi(nsa, kv_heads, model.v_head_dim)
        if nsa.cmp_position:
            self.cmp.pos_k = nn.Parameter(0.02 * torch.randn(kv_heads, nsa.span_tokens, model.head_dim))
            self.cmp.pos_v = nn.Parameter(0.02 * torch.randn(kv_heads, nsa.span_tokens, model.v_head_dim))

    def heads(self, projection, x, dim: int):
        """[B, T, hidden] -> [B, heads, T, dim]."""
        return projection(x).unflatten(-1, (-1, dim)).transpose(1, 2)

    def branch_kv(self, name: str, x):
        """Unrotated k, v of one branch, [B, K, T, d]."""
        branch = self if self.model.nsa.shared_kv else getattr(self, name)
        k = self.heads(branch.k_proj, x, self.model.head_dim)
        return k, self.heads(branch.v_proj, x, self.model.v_head_dim)

    def compressed_rows(self, x, positions):
        nsa, theta = self.model.nsa, self.model.rope_theta
        k, v = self.branch_kv("cmp", x)
        pos_k, pos_v = (self.cmp.pos_k, self.cmp.pos_v) if nsa.cmp_position else (None, None)
        if nsa.cmp_rope == "before":
            k = rope(k, positions, theta)
        rows_k = compress(k, self.cmp.phi_k, pos_k, nsa)
        rows_v = compress(v, self.cmp.phi_v, pos_v, nsa)
        if nsa.cmp_rope == "after":
            rows_k = rope(rows_k, positions[: rows_k.shape[2]] * nsa.span_stride, theta)
        return rows_k, rows_v

    def forward(self, x, trace: dict | None = None):
        model, nsa = self.model, self.model.nsa
        num_tokens = x.shape[1]
        num_blocks = -(-num_tokens // nsa.block_tokens)
        positions = torch.arange(num_tokens, device=x.device)
        q = rope(self.heads(self.q_proj, x, model.head_dim), positions, model.rope_theta)

        rows_k, rows_v = self.compressed_rows(x, positions)
        cmp_out, probabilities = masked_attention(q, rows_k, rows_v, row_mask(num_tokens, nsa, x.device))

        importance = block_importance(probabilities, model.num_key_value_heads, num_blocks, nsa)
        chosen = choose_blocks(importance, nsa)
        sel_k, sel_v = self.branch_kv("sel", x)
        sel_k = rope(sel_k, positions, model.rope_theta)
        mask = selected_mask(chosen, nsa.block_tokens, model.group_size)
        sel_out, _ = masked_attention(q, sel_k, sel_v, mask)

        win_k, win_v = self.branch_kv("win", x)
        win_k = rope(win_k, positions, model.rope_theta)
        mask = window_mask(num_tokens, nsa.window_tokens, x.device)
        win_out, _ = masked_attention(q, win_k, win_v, mask)

        gates = torch.sigmoid(self.g_proj(x)).unflatten(-1, (-1, 3)).transpose(1, 2)  # [B, H, T, 3]
        out = gates[..., 0:1] * cmp_out + gates[..., 1:2] * sel_out + gates[..., 2:3] * win_out
        if trace is not None:
            trace.update(importance=importance, chosen=chosen, gates=gates)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class FullAttention(nn.Module):
    """Plain causal attention: the baseline, with Llama's tensor names."""

    def __init__(self, model: ModelSettings):
        super().__init__()
        self.model = model
        heads, kv_heads = model.num_attention_heads, model.num_key_value_heads
        self.q_proj = nn.Linear(model.hidden_size, heads * model.head_dim, bias=False)
        self.k_proj = nn.Linear(model.hidden_size, kv_heads * model.head_dim, bias=False)
        self.v_proj = nn.Linear(model.hidden_size, kv_heads * model.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * model.head_dim, model.hidden_size, bias=False)

    def forward(self, x, trace: dict | None = None):
        positions = torch.arange(x.shape[1], device=x.device)
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.model.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (rope(y, positions, self.model.rope_theta) for y in (q, k))
        out, _ = masked_attention(q, k, v, causal_mask(x.shape[1], x.device))
        return self.o_proj(out.transpose(1, 2).flatten(2))


class RmsNorm(nn.Module):
    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        y = x.to(wide)
        y = y * torch.rsqrt(y.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight.to(wide)
        return y.to(x.dtype)


class Mlp(nn.Module):
    def __init__(self, model: ModelSettings):
        super().__init__()
        self.gate_proj = nn.Linear(model.hidden_size, model.intermediate_size, bias=False)
        self.up_proj = nn.Linear(model.hidden_size, model.intermediate_size, bias=False)
        self.down_proj = nn.Linear(model.intermediate_size, model.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


ATTENTION_LAYERS = {"nsa": NsaAttention, "full": FullAttention}


class DecoderLayer(nn.Module):
    def __init__(self, model: ModelSettings, attention_layers=ATTENTION_LAYERS):
        super().__init__()
        self.self_attn = attention_layers[model.attention](model)
        self.mlp = Mlp(model)
        self.input_layernorm = RmsNorm(model.hidden_size, model.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(model.hidden_size, model.rms_norm_eps)

    def forward(self, x, trace: dict | None = None):
        x = x + self.self_attn(self.input_layernorm(x), trace)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, model: ModelSettings, attention_layers):
        super().__init__()
        self.embed_tokens = nn.Embedding(model.vocab_size, model.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(model, attention_layers) for _ in range(model.num_hidden_layers)
        )
        self.norm = RmsNorm(model.hidden_size, model.rms_norm_eps)


class NsaForCausalLM(nn.Module):
    """forward: tokens [B, T] -> logits [B, T, V]. With attention="full" it is a LlamaForCausalLM."""

    def __init__(self, settings: ModelSettings, attention_layers=ATTENTION_LAYERS):
        super().__init__()
        self.settings = settings
        self.model = Decoder(settings, attention_layers)
        if not settings.tie_word_embeddings:
            self.lm_head = nn.Linear(settings.hidden_size, settings.vocab_size, bias=False)

    def forward(self, tokens, traces: list | None = None):
        """`traces`, when given, receives one dict per layer: importance, chosen, gates."""
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            trace = {} if traces is not None else None
            x = layer(x, trace)
            if traces is not None:
                traces.append(trace)
        x = self.model.norm(x)
        if self.settings.tie_word_embeddings:
            return x @ self.model.embed_tokens.weight.T
        return self.lm_head(x)
