"""Muon for the hidden matrices, AdamW for the rest."""

import collections

import torch

MUON_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz on [n, rows, columns]: singular values pushed towards 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


class Muon:
    """Momentum, orthogonalised per matrix; matrices of one shape are stacked."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        by_shape = collections.defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        self.groups = list(by_shape.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]

    @torch.no_grad()
    def step(self, lr_factor: float) -> None:
        lr = self.lr * lr_factor
        for group, buffer in zip(self.groups, self.buffers):
            gradient = torch.stack([parameter.grad for parameter in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))
            rows, columns = group[0].shape
            scale = lr * max(1.0, rows / columns) ** 0.5
            torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            torch._foreach_add_(group, list(update.unbind(0)), alpha=-scale)


class Optimiser:
    """Both optimisers under one schedule factor."""

    def __init__(self, model, muon_lr: float, adam_lr: float, phi_lr: float, fused: bool):
        hidden, phi, rest = [], [], []
        for name, parameter in model.named_parameters():
            if ".phi_" in name or ".pos_" in name:
                phi.append(parameter)
            elif any(part in name for part in MUON_NAMES):
                hidden.append(parameter)
            else:
                rest.append(parameter)
        self.muon = Muon(hidden, muon_lr)
        groups = [{"params": rest, "lr": adam_lr}] + [{"params": phi, "lr": phi_lr}] * bool(phi)
        self.adam_lrs = [group["lr"] for group in groups]
        self.adam = torch.optim.AdamW(
            groups, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=fused
        )
        self.parameters = hidden + phi + rest

    def step(self, lr_factor: float) -> None:
        for group, lr in zip(self.adam.param_groups, self.adam_lrs):
            group["lr"] = lr * lr_factor
        self.adam.step()
        self.muon.step(lr_factor)
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict:
        return {"adam": self.adam.state_dict(), "muon": self.muon.buffers}

    def load(self, state: dict) -> None:
        self.adam.load_state_dict(state["adam"])
        for buffer, saved in zip(self.muon.buffers, state["muon"]):
            buffer.copy_(saved)
