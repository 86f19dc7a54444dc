"""The selector's alignment loss: compressed probabilities should rank blocks as token attention would.

For some query positions, the target is the mass that the selected branch's dense attention gives to each
block (mean over the group's heads); the student is the importance that the compression branch computes.
KL divergence over the blocks that are not forced, weighted by the target's mass there.
"""

import math

import torch

from .config import NsaSettings


def target_mass(q, k, positions, block_tokens: int):
    """q [B,K,G,P,d], k [B,K,T,d], positions [B,P] -> attention mass per block [B,K,P,N] fp32."""
    scores = (q.flatten(2, 3) @ k.transpose(-1, -2)).view(*q.shape[:-1], k.shape[2])
    token = torch.arange(k.shape[2], device=k.device)
    hidden = token > positions[:, None, None, :, None]
    scores = (scores.float() / math.sqrt(q.shape[-1])).masked_fill(hidden, -math.inf)
    mass = torch.softmax(scores, dim=-1).mean(dim=2)
    return mass.unflatten(-1, (-1, block_tokens)).sum(dim=-1)


def alignment_loss(q, k, rows_k, positions, nsa: NsaSettings):
    """q [B,K,G,T,d] and k [B,K,T,d] detached; rows_k [B,K,C,d] with gradient; positions [B,P]."""
    from .layer import block_importance, forced_and_existing, row_probabilities, rows_visible

    index = positions[:, None, None, :, None].expand(-1, *q.shape[1:3], -1, q.shape[-1])
    queries = q.gather(3, index)
    with torch.no_grad():
        mass = target_mass(queries, k, positions, nsa.block_tokens)
    visible = rows_visible(positions, rows_k.shape[2], nsa)[:, None, None]
    student = row_probabilities(queries, rows_k, visible).sum(dim=2)
    student = block_importance(student, nsa)
    forced, exists = forced_and_existing(positions, mass.shape[-1], nsa)
    free = (exists & ~forced)[:, None].float()
    return free_blocks_kl(mass * free, student * free)


def free_blocks_kl(mass, student):
    """Mass-weighted KL(target || student), both zero outside the free blocks."""
    weight = mass.sum(dim=-1, keepdim=True)
    target = mass / weight.clamp(min=1e-9)
    student = student / student.sum(dim=-1, keepdim=True).clamp(min=1e-9)
    ratio = torch.log(target.clamp(min=1e-9)) - torch.log(student.clamp(min=1e-9))
    kl = (target * ratio).sum(dim=-1)
    return (kl * weight[..., 0]).sum() / weight.sum().clamp(min=1e-9)
