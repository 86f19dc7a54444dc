"""The attention layers as they are trained: the function of reference.py, fast on a GPU.

Only the paper family's training settings are supported: separate K, V per branch and `cmp_rope` "after".
The context length must be a multiple of block_tokens. Weights stay fp32; the computation uses x's dtype.
"""

import dataclasses
import math

import torch
from torch.nn import functional as F

from . import align
from .config import NsaSettings
from .kernels import Kernels
from .reference import FullAttention, NsaAttention


@dataclasses.dataclass
class Context:
    """What all layers of one forward pass share."""

    kernels: Kernels
    cos: torch.Tensor  # [T, d/2] fp32
    sin: torch.Tensor  # [T, d/2] fp32
    sel_dense: bool = False  # the selected branch attends every block: the warm-up of the selector
    align_positions: torch.Tensor | None = None  # [B, P] query positions of the alignment loss


def rope_tables(num_tokens: int, head_dim: int, theta: float, device) -> tuple:
    half = head_dim // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(num_tokens, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float().to(device), angle.sin().float().to(device)


def rotate(x, cos, sin):
    """x [..., T, d] rotated by the tables [T, d/2], computed in fp32."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def linear(x, weight):
    return F.linear(x, weight.to(x.dtype))


def phi_mlp(spans, phi):
    """spans [B, K, C, l, d] through the MLP of each KV head."""
    hidden = torch.einsum("bkci,koi->bkco", spans.flatten(-2), phi.fc1.weight.to(spans.dtype))
    return torch.einsum("bkci,koi->bkco", F.gelu(hidden), phi.fc2.weight.to(spans.dtype))


def compress(x, phi, position, nsa: NsaSettings):
    """x [B, K, T, d] -> [B, K, T / stride, d]; the last rows are incomplete and visible to nobody."""
    padded = F.pad(x, (0, 0, 0, nsa.span_tokens - nsa.span_stride))
    spans = padded.unfold(2, nsa.span_tokens, nsa.span_stride).transpose(-1, -2)
    return phi_mlp(spans + position[:, None].to(x.dtype), phi)


def row_probabilities(q, rows_k, last_token):
    """q [B,K,G,Q,d] over rows [B,K,C,d] -> [B,K,G,Q,C] fp32; last_token [Q] or [B,Q] of each query."""
    nsa_shape = q.shape[:-1]
    scores = q.flatten(2, 3) @ rows_k.transpose(-1, -2)
    scores = scores.view(*nsa_shape, rows_k.shape[2]).float() / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~last_token, -math.inf)
    top = scores.amax(dim=-1, keepdim=True).clamp(min=-1e30).detach()
    weights = torch.exp(scores - top)
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def rows_visible(positions, num_rows: int, nsa: NsaSettings):
    """positions [...] -> [..., C]: does row i end at or before the position?"""
    row_end = torch.arange(num_rows, device=positions.device) * nsa.span_stride + nsa.span_tokens - 1
    return row_end <= positions[..., None]


def block_importance(per_group, nsa: NsaSettings):
    """[..., C] probabilities summed over the group -> [..., N], the weights of docs/nsa.md."""
    a, e = nsa.block_tokens // nsa.span_stride, nsa.span_tokens // nsa.span_stride
    num_blocks = per_group.shape[-1] // a
    padded = F.pad(per_group, (e - 1, a))
    total = 0.0
    for k in range(a + e - 1):
        rows = padded[..., k : k + a * num_blocks : a]
        total = total + min(k + 1, a, e, a + e - 1 - k) * rows
    return total


def forced_and_existing(positions, num_blocks: int, nsa: NsaSettings):
    """positions [...] -> two masks [..., N]."""
    own = (positions // nsa.block_tokens)[..., None]
    block = torch.arange(num_blocks, device=positions.device)
    forced = (block < nsa.num_initial) | (block > own - nsa.num_local)
    return forced & (block <= own), block <= own


def choose_blocks(importance, nsa: NsaSettings):
    """importance [B,K,T,N] fp32 -> mask of the chosen blocks: rank by counting, ties to the lower index."""
    num_tokens, num_blocks = importance.shape[-2:]
    positions = torch.arange(num_tokens, device=importance.device)
    forced, exists = forced_and_existing(positions, num_blocks, nsa)
    key = importance.detach().masked_fill(forced, math.inf).masked_fill(~exists, -math.inf)
    index = torch.arange(num_blocks, device=importance.device)
    mine, other = key[..., :, None], key[..., None, :]
    beaten = (other > mine) | ((other == mine) & (index[None, :] < index[:, None]))
    return (beaten.sum(dim=-1) < nsa.num_selected) & exists


class FastNsaAttention(NsaAttention):
    """forward returns (output, alignment loss or None, chosen [B,K,T,N], gates [B,H,T,3])."""

    def project(self, x):
        """One matrix product for q, the three branches' k, v and the gates."""
        parts = [self.q_proj.weight]
        for branch in (self.cmp, self.sel, self.win):
            parts += [branch.k_proj.weight, branch.v_proj.weight]
        parts.append(self.g_proj.weight)
        y = linear(x, torch.cat(parts))
        pieces = y.split([part.shape[0] for part in parts], dim=-1)
        dim = self.model.head_dim
        heads = [piece.unflatten(-1, (-1, dim)).transpose(1, 2) for piece in pieces[:-1]]
        return heads, pieces[-1].unflatten(-1, (-1, 3)).transpose(1, 2)

    def rows(self, k, context: Context):
        nsa = self.model.nsa
        rows_k = compress(k, self.cmp.phi_k, self.cmp.pos_k, nsa)
        return rotate(rows_k, context.cos[:: nsa.span_stride], context.sin[:: nsa.span_stride])

    def forward(self, x, context: Context):
        model, nsa = self.model, self.model.nsa
        (q, cmp_k, cmp_v, sel_k, sel_v, win_k, win_v), gate_scores = self.project(x)
        q, sel_k, win_k = (rotate(y, context.cos, context.sin) for y in (q, sel_k, win_k))
        grouped_q = q.unflatten(1, (model.num_key_value_heads, model.group_size))

        rows_k = self.rows(cmp_k, context)
        rows_v = compress(cmp_v, self.cmp.phi_v, self.cmp.pos_v, nsa)
        positions = torch.arange(x.shape[1], device=x.device)
        visible = rows_visible(positions, rows_k.shape[2], nsa)
        p = row_probabilities(grouped_q, rows_k, visible)
        cmp_out = (p.to(x.dtype).flatten(2, 3) @ rows_v).view_as(grouped_q).flatten(1, 2)

        chosen = choose_blocks(block_importance(p.detach().sum(dim=2), nsa), nsa)
        if context.sel_dense:
            sel_out = context.kernels.causal(q, sel_k, sel_v)
        else:
            sel_out = context.kernels.selected(q, sel_k, sel_v, chosen)
        win_out = context.kernels.window(q, win_k, win_v)

        gates = torch.sigmoid(gate_scores.float()).to(x.dtype)
        out = gates[..., 0:1] * cmp_out + gates[..., 1:2] * sel_out + gates[..., 2:3] * win_out
        out = linear(out.transpose(1, 2).flatten(2), self.o_proj.weight)
        loss = None
        if context.align_positions is not None:
            loss = self.alignment(x, grouped_q, sel_k, context)
        return out, loss, chosen, gates

    def alignment(self, x, grouped_q, sel_k, context: Context):
        """Its gradient reaches only cmp.k_proj, phi_k and pos_k."""
        k = linear(x.detach(), self.cmp.k_proj.weight)
        k = k.unflatten(-1, (-1, self.model.head_dim)).transpose(1, 2)
        return align.alignment_loss(
            grouped_q.detach(),
            sel_k.detach(),
            self.rows(k, context),
            context.align_positions,
            self.model.nsa,
        )


class FastFullAttention(FullAttention):
    """Same returns as FastNsaAttention, the last three None."""

    def forward(self, x, context: Context):
        parts = [self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]
        pieces = linear(x, torch.cat(parts)).split([part.shape[0] for part in parts], dim=-1)
        q, k, v = (y.unflatten(-1, (-1, self.model.head_dim)).transpose(1, 2) for y in pieces)
        q, k = (rotate(y, context.cos, context.sin) for y in (q, k))
        out = context.kernels.causal(q, k, v)
        return linear(out.transpose(1, 2).flatten(2), self.o_proj.weight), None, None, None
