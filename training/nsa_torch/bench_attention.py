"""Times single attention calls, forward and backward: SDPA back ends, and ways to mask chosen blocks.

    python -m nsa_torch.bench_attention
"""

import time

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from .kernels import Kernels
from .train import settings_for

BLOCK = 128


def all_partial(blocks: BlockMask, mask_mod) -> BlockMask:
    """The causal tiles, every one of them masked by mask_mod."""
    n = blocks.kv_num_blocks.shape[-1]
    tile = torch.arange(n, device="cuda", dtype=torch.int32)
    counts = (tile + 1)[None, None]
    indices = tile[None, :].expand(n, n)[None, None].contiguous()
    return BlockMask.from_kv_blocks(counts, indices, BLOCK_SIZE=BLOCK, mask_mod=mask_mod)


def attentions(num_tokens: int, chosen):
    kernels = Kernels(settings_for("base", "nsa"), num_tokens, torch.device("cuda"), fused=True)

    def chosen_mask(b, h, q, kv):
        return (q >= kv) & chosen[b, 0, q, kv // 64]

    partial = all_partial(kernels.causal_blocks, chosen_mask)

    def sdpa(backend):
        def run(q, k, v):
            with sdpa_kernel(backend):
                return kernels.causal(q, k, v)
        return run

    return {
        "sdpa flash": sdpa(SDPBackend.FLASH_ATTENTION),
        "sdpa cudnn": sdpa(SDPBackend.CUDNN_ATTENTION),
        "flex causal": torch.compile(
            lambda q, k, v: flex_attention(q, k, v, block_mask=kernels.causal_blocks, enable_gqa=True)
        ),
        "flex window": torch.compile(kernels.window),
        "flex chosen score_mod": torch.compile(lambda q, k, v: kernels.selected(q, k, v, chosen)),
        "flex chosen mask_mod": torch.compile(
            lambda q, k, v: flex_attention(q, k, v, block_mask=partial, enable_gqa=True)
        ),
    }


def main() -> None:
    for num_tokens in (2048, 8192):
        batch = 65536 // num_tokens
        def tensor(h):
            return torch.randn(batch, num_tokens, h, 64, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        q, k, v = tensor(16), tensor(1), tensor(1)
        gradient = torch.randn_like(q)
        chosen = torch.rand(batch, 1, num_tokens, num_tokens // 64, device="cuda") < 0.4
        chosen[..., 0] = True
        for name, run in attentions(num_tokens, chosen).items():
            try:
                started = time.time()
                run(q, k, v).backward(gradient)
                torch.cuda.synchronize()
                first, started = time.time() - started, time.time()
                for _ in range(5):
                    out = run(q, k, v)
                torch.cuda.synchronize()
                forward, started = (time.time() - started) / 5, time.time()
                for _ in range(5):
                    run(q, k, v).backward(gradient)
                torch.cuda.synchronize()
                both = (time.time() - started) / 5
                print(f"{num_tokens} {name}: forward {forward * 1e3:.2f} ms, both {both * 1e3:.2f} ms, first {first:.1f} s", flush=True)
            except Exception as error:
                print(f"{num_tokens} {name}: {type(error).__name__} {str(error)[:300]}", flush=True)


if __name__ == "__main__":
    main()
