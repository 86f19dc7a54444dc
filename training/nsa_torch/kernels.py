"""The three token-level attentions, either fused (FlexAttention and SDPA) or with explicit masks."""

import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from .config import ModelSettings
from .reference import selected_mask, window_mask

try:
    from .selected import selected_attention
except ImportError:  # no Triton: only the masked path
    selected_attention = None


class Kernels:
    """Attention for one context length. q [B,H,T,d], k, v [B,K,T,d]; chosen [B,K,T,N] bool.

    `fused` uses FlexAttention for the window and the Triton kernels of selected.py; otherwise plain SDPA with
    boolean masks, which is what the CPU tests run.
    """

    def __init__(self, model: ModelSettings, num_tokens: int, device, fused: bool):
        self.fused = fused
        self.group_size = model.group_size
        self.block_tokens = model.nsa.block_tokens
        window_tokens = model.nsa.window_tokens
        self.is_nsa = model.attention == "nsa"
        if not self.is_nsa:
            return
        if not fused:
            self.window_mask = window_mask(num_tokens, window_tokens, device)
            return

        def windowed(b, h, q, kv):
            return (q >= kv) & (q - kv < window_tokens)

        self.window_blocks = create_block_mask(windowed, None, None, num_tokens, num_tokens, device)

    def causal(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    def window(self, q, k, v):
        if self.fused:
            return flex_attention(q, k, v, block_mask=self.window_blocks, enable_gqa=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.window_mask, enable_gqa=True)

    def selected(self, q, k, v, chosen):
        if not self.fused:
            mask = selected_mask(chosen, self.block_tokens, self.group_size)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return selected_attention(q, k, v, chosen, self.block_tokens)
