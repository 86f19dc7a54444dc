"""Attention over chosen blocks as Triton kernels, forward and backward, for training.

All heads of a group share one choice, so the rows of a tile are TILE_QUERIES neighbouring queries times the
group's heads: one K, V block serves all of them, and a tile visits only the blocks that any of its queries
chose. Group sizes must be powers of two.

Layouts inside: q, o [B, T, H, d]; k, v [B, T, K, d]; chosen [B, K, T, N]; lse, delta [B, T, H] fp32, base 2.
"""

import math

import torch
import triton
import triton.language as tl

TILE_ROWS = 128
# (warps, stages): measured on one H200 with `python -m nsa_torch.bench_attention`
FORWARD_CONFIG, DQ_CONFIG, DKV_CONFIG = (8, 3), (4, 2), (4, 2)


@triton.jit
def tile_rows(tile, group, T, H, G: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr):
    """Token of each row, and its (batch, token, head) index into [B, T, H]."""
    row = tl.arange(0, ROWS)
    token = tile * (ROWS // G) + row // G
    head = (group % K) * G + row % G
    return token, ((group // K) * T + token).to(tl.int64) * H + head


@triton.jit
def masked_scores(a, b, chosen, token_q, token_k, scale, TRANSPOSED: tl.constexpr):
    """Scaled scores (base 2) of a tile and a block; a, b, and the masks are transposed for dK, dV."""
    scores = tl.dot(a, tl.trans(b)) * scale
    if TRANSPOSED:
        visible = (chosen[None, :] != 0) & (token_k[:, None] <= token_q[None, :])
    else:
        visible = (chosen[:, None] != 0) & (token_k[None, :] <= token_q[:, None])
    return tl.where(visible, scores, -1.0e30)


@triton.jit
def forward_kernel(Q, K_, V_, CHOSEN, LIST, COUNT, O, LSE, scale, T, N,
                   H: tl.constexpr, K: tl.constexpr, D: tl.constexpr, G: tl.constexpr,
                   BLOCK: tl.constexpr, ROWS: tl.constexpr):
    tile, group = tl.program_id(0), tl.program_id(1)
    num_tiles = tl.num_programs(0)
    token, index = tile_rows(tile, group, T, H, G, K, ROWS)
    dim, in_block = tl.arange(0, D), tl.arange(0, BLOCK)
    q = tl.load(Q + index[:, None] * D + dim[None, :])
    top = tl.full([ROWS], -1.0e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)
    at = group * num_tiles + tile
    for i in range(tl.load(COUNT + at)):
        block = tl.load(LIST + at * N + i)
        token_k = block * BLOCK + in_block
        kv = (((group // K) * T + token_k).to(tl.int64) * K + group % K)[:, None] * D + dim[None, :]
        k, v = tl.load(K_ + kv), tl.load(V_ + kv)
        chosen = tl.load(CHOSEN + (group.to(tl.int64) * T + token) * N + block)
        scores = masked_scores(q, k, chosen, token, token_k, scale, False)
        new_top = tl.maximum(top, tl.max(scores, 1))
        p = tl.exp2(scores - new_top[:, None])
        fade = tl.exp2(top - new_top)
        total = total * fade + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None])
        top = new_top
    tl.store(O + index[:, None] * D + dim[None, :], (acc / total[:, None]).to(O.dtype.element_ty))
    tl.store(LSE + index, top + tl.log2(total))


@triton.jit
def dq_kernel(Q, K_, V_, CHOSEN, LIST, COUNT, DO, LSE, DELTA, DQ, scale, out_scale, T, N,
              H: tl.constexpr, K: tl.constexpr, D: tl.constexpr, G: tl.constexpr,
              BLOCK: tl.constexpr, ROWS: tl.constexpr):
    tile, group = tl.program_id(0), tl.program_id(1)
    num_tiles = tl.num_programs(0)
    token, index = tile_rows(tile, group, T, H, G, K, ROWS)
    dim, in_block = tl.arange(0, D), tl.arange(0, BLOCK)
    q = tl.load(Q + index[:, None] * D + dim[None, :])
    do = tl.load(DO + index[:, None] * D + dim[None, :])
    lse, delta = tl.load(LSE + index), tl.load(DELTA + index)
    acc = tl.zeros([ROWS, D], tl.float32)
    at = group * num_tiles + tile
    for i in range(tl.load(COUNT + at)):
        block = tl.load(LIST + at * N + i)
        token_k = block * BLOCK + in_block
        kv = (((group // K) * T + token_k).to(tl.int64) * K + group % K)[:, None] * D + dim[None, :]
        k, v = tl.load(K_ + kv), tl.load(V_ + kv)
        chosen = tl.load(CHOSEN + (group.to(tl.int64) * T + token) * N + block)
        scores = masked_scores(q, k, chosen, token, token_k, scale, False)
        p = tl.exp2(scores - lse[:, None])
        ds = p * (tl.dot(do, tl.trans(v)) - delta[:, None])
        acc = tl.dot(ds.to(k.dtype), k, acc)
    tl.store(DQ + index[:, None] * D + dim[None, :], (acc * out_scale).to(DQ.dtype.element_ty))


@triton.jit
def dkv_kernel(Q, K_, V_, CHOSEN, LIST, COUNT, DO, LSE, DELTA, DK, DV, scale, out_scale, T, N,
               H: tl.constexpr, K: tl.constexpr, D: tl.constexpr, G: tl.constexpr,
               BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """One program per selection block: the tiles that chose it, in order, so the sum is deterministic."""
    block, group = tl.program_id(0), tl.program_id(1)
    num_tiles = T // (ROWS // G)
    dim, in_block = tl.arange(0, D), tl.arange(0, BLOCK)
    token_k = block * BLOCK + in_block
    kv = (((group // K) * T + token_k).to(tl.int64) * K + group % K)[:, None] * D + dim[None, :]
    k, v = tl.load(K_ + kv), tl.load(V_ + kv)
    dk = tl.zeros([BLOCK, D], tl.float32)
    dv = tl.zeros([BLOCK, D], tl.float32)
    at = group * N + block
    for i in range(tl.load(COUNT + at)):
        tile = tl.load(LIST + at * num_tiles + i)
        token, index = tile_rows(tile, group, T, H, G, K, ROWS)
        q = tl.load(Q + index[:, None] * D + dim[None, :])
        do = tl.load(DO + index[:, None] * D + dim[None, :])
        lse, delta = tl.load(LSE + index), tl.load(DELTA + index)
        chosen = tl.load(CHOSEN + (group.to(tl.int64) * T + token) * N + block)
        scores = masked_scores(k, q, chosen, token, token_k, scale, True)
        p = tl.exp2(scores - lse[None, :])
        dv = tl.dot(p.to(do.dtype), do, dv)
        ds = p * (tl.dot(v, tl.trans(do)) - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    tl.store(DK + kv, (dk * out_scale).to(DK.dtype.element_ty))
    tl.store(DV + kv, dv.to(DV.dtype.element_ty))


def visit_lists(chosen, tile_queries: int):
    """chosen [B,K,T,N] -> (blocks per tile, counts), (tiles per block, counts), int32."""
    visited = chosen.unflatten(2, (-1, tile_queries)).any(dim=3).to(torch.uint8)  # [B, K, tiles, N]
    lists = []
    for table in (visited, visited.transpose(2, 3)):
        order = table.contiguous().sort(dim=-1, descending=True, stable=True).indices
        lists += [order.to(torch.int32), table.sum(dim=-1, dtype=torch.int32).contiguous()]
    return lists


def shape_arguments(q, k, chosen, block_tokens: int) -> dict:
    heads, kv_heads, dim = q.shape[2], k.shape[2], q.shape[3]
    return dict(T=q.shape[1], N=chosen.shape[3], H=heads, K=kv_heads, D=dim, G=heads // kv_heads,
                BLOCK=block_tokens, ROWS=TILE_ROWS)


@torch.library.custom_op("nsa::selected_forward", mutates_args=())
def selected_forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chosen: torch.Tensor,
                     block_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B,T,H,d], k, v [B,T,K,d], chosen [B,K,T,N] bool -> (o like q, lse [B,T,H])."""
    q, k, v, chosen = (tensor.contiguous() for tensor in (q, k, v, chosen))
    shape = shape_arguments(q, k, chosen, block_tokens)
    tile_queries = TILE_ROWS // shape["G"]
    blocks, counts, _, _ = visit_lists(chosen, tile_queries)
    out, lse = torch.empty_like(q), torch.empty(q.shape[:3], device=q.device, dtype=torch.float32)
    grid = (shape["T"] // tile_queries, q.shape[0] * shape["K"])
    warps, stages = FORWARD_CONFIG
    scale = math.log2(math.e) / math.sqrt(q.shape[-1])
    forward_kernel[grid](q, k, v, chosen.view(torch.uint8), blocks, counts, out, lse, scale, **shape,
                         num_warps=warps, num_stages=stages)
    return out, lse


@torch.library.custom_op("nsa::selected_backward", mutates_args=())
def selected_backward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chosen: torch.Tensor,
                      out: torch.Tensor, lse: torch.Tensor, dout: torch.Tensor,
                      block_tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v, chosen, dout = (tensor.contiguous() for tensor in (q, k, v, chosen, dout))
    shape = shape_arguments(q, k, chosen, block_tokens)
    tile_queries = TILE_ROWS // shape["G"]
    blocks, counts, tiles, tile_counts = visit_lists(chosen, tile_queries)
    delta = (out.float() * dout.float()).sum(dim=-1).contiguous()
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    out_scale = 1 / math.sqrt(q.shape[-1])
    scale = math.log2(math.e) * out_scale
    bits, groups = chosen.view(torch.uint8), q.shape[0] * shape["K"]
    warps, stages = DQ_CONFIG
    dq_kernel[(shape["T"] // tile_queries, groups)](
        q, k, v, bits, blocks, counts, dout, lse, delta, dq, scale, out_scale, **shape,
        num_warps=warps, num_stages=stages)
    warps, stages = DKV_CONFIG
    dkv_kernel[(shape["N"], groups)](
        q, k, v, bits, tiles, tile_counts, dout, lse, delta, dk, dv, scale, out_scale, **shape,
        num_warps=warps, num_stages=stages)
    return dq, dk, dv


@selected_forward.register_fake
def _(q, k, v, chosen, block_tokens):
    return torch.empty(q.shape, device=q.device, dtype=q.dtype), q.new_empty(q.shape[:3], dtype=torch.float32)


@selected_backward.register_fake
def _(q, k, v, chosen, out, lse, dout, block_tokens):
    return tuple(torch.empty(t.shape, device=t.device, dtype=t.dtype) for t in (q, k, v))


def save_for_backward(ctx, inputs, output):
    q, k, v, chosen, ctx.block_tokens = inputs
    ctx.save_for_backward(q, k, v, chosen, *output)


def backward(ctx, dout, dlse):
    q, k, v, chosen, out, lse = ctx.saved_tensors
    return *selected_backward(q, k, v, chosen, out, lse, dout, ctx.block_tokens), None, None


selected_forward.register_autograd(backward, setup_context=save_for_backward)


def selected_attention(q, k, v, chosen, block_tokens: int):
    """q [B,H,T,d], k, v [B,K,T,d] -> [B,H,T,d]; every query must have chosen its own block."""
    out, _ = selected_forward(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), chosen, block_tokens
    )
    return out.transpose(1, 2)
