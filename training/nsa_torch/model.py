"""The trained model: reference.py's parameters, fast layers, and a loss per token."""

import torch
from torch import nn
from torch.nn import functional as F

from .config import ModelSettings
from .kernels import Kernels
from .layer import Context, FastFullAttention, FastNsaAttention, linear, rope_tables
from .reference import NsaForCausalLM

torch._dynamo.config.recompile_limit = 64  # one graph per context length, mode and attention
FAST_LAYERS = {"nsa": FastNsaAttention, "full": FastFullAttention}


def decoder_layer(layer, x, context: Context):
    out, loss, chosen, gates = layer.self_attn(layer.input_layernorm(x), context)
    x = x + out
    y, mlp = layer.post_attention_layernorm(x), layer.mlp
    y = F.silu(linear(y, mlp.gate_proj.weight)) * linear(y, mlp.up_proj.weight)
    return x + linear(y, mlp.down_proj.weight), loss, chosen, gates


def token_losses(norm, embedding, x, targets):
    """Cross-entropy [B, T] in nats, and whether the most likely token is the target."""
    logits = linear(norm(x), embedding).float()
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return loss.view_as(targets), logits.detach().argmax(dim=-1) == targets


class FastModel(NsaForCausalLM):
    """One compiled layer function serves all layers, so a new context length compiles quickly."""

    def __init__(self, settings: ModelSettings, device, dtype, compiled: bool):
        super().__init__(settings, FAST_LAYERS)
        self.device, self.dtype, self.compiled = device, dtype, compiled
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.run_layer, self.run_losses = wrap(decoder_layer), wrap(token_losses)
        self.shared = {}
        self.to(device)

    def context(self, num_tokens: int, **options) -> Context:
        if num_tokens not in self.shared:
            tables = rope_tables(
                num_tokens, self.settings.head_dim, self.settings.rope_theta, self.device
            )
            kernels = Kernels(self.settings, num_tokens, self.device, fused=self.compiled)
            self.shared[num_tokens] = (kernels, *tables)
        return Context(*self.shared[num_tokens], **options)

    def losses(self, tokens, targets, context: Context, traces: list | None = None):
        """Returns (loss [B,T], correct [B,T], mean alignment loss or 0)."""
        x = F.embedding(tokens, self.model.embed_tokens.weight).to(self.dtype)
        align = 0.0
        for layer in self.model.layers:
            x, loss, chosen, gates = self.run_layer(layer, x, context)
            if loss is not None:
                align = align + loss / len(self.model.layers)
            if traces is not None:
                traces.append((chosen, gates))
        embedding = self.model.embed_tokens.weight
        return *self.run_losses(self.model.norm, embedding, x, targets), align


def initialise(model: NsaForCausalLM, seed: int) -> None:
    """Normal weights; projections back into the residual stream start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
                continue
            std = 0.02 if "embed" in name else 0.7 * parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def convert_trunk(trunk: NsaForCausalLM, model: NsaForCausalLM, noise: float = 0.002) -> None:
    """Starts an NSA model as exactly the function of a full-attention trunk.

    Every gate is sigmoid(0) = 1/2, so o_proj is doubled; the selected branch takes the trunk's K and V; the
    other two branches take its K, and V = 0: with every block selected the output is the trunk's. phi is the
    exact mean of the span, by gelu(x) - gelu(-x) = x, plus noise.
    """
    source, dim = dict(trunk.named_parameters()), model.settings.head_dim
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in source:
                scale = 2.0 if name.endswith("o_proj.weight") else 1.0
                parameter.copy_(source[name] * scale)
            elif ".phi_" in name:
                parameter.copy_(mean_phi(parameter, name, dim))
                parameter.add_(torch.randn_like(parameter) * noise)
            elif name.endswith(("k_proj.weight", "sel.v_proj.weight")):
                trunk_name = name.replace("cmp.", "").replace("sel.", "").replace("win.", "")
                parameter.copy_(source[trunk_name])
            else:  # V of the two other branches, gates, span positions
                parameter.zero_()


def mean_phi(parameter: nn.Parameter, name: str, dim: int) -> torch.Tensor:
    eye = torch.eye(dim, device=parameter.device)
    weight = torch.zeros_like(parameter)
    if name.endswith("fc1.weight"):  # [K, hidden, l * d], token-major
        span_tokens = parameter.shape[2] // dim
        mean = eye.repeat(1, span_tokens) / span_tokens
        weight[:, :dim], weight[:, dim : 2 * dim] = mean, -mean
    else:  # fc2 [K, d, hidden]
        weight[:, :, :dim], weight[:, :, dim : 2 * dim] = eye, -eye
    return weight
