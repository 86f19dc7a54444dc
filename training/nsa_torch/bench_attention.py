"""Times single attention calls, forward and backward, and checks the chosen-block kernels.

    python -m nsa_torch.bench_attention
"""

import time

import torch

from . import selected
from .kernels import Kernels
from .train import settings_for

CONFIGS = [(4, 2), (4, 3), (4, 4), (8, 2), (8, 3)]


def inputs(num_tokens: int, batch: int):
    def tensor(heads):
        shape = (batch, num_tokens, heads, 64)
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()

    return tensor(16), tensor(1), tensor(1)


def typical_choice(num_tokens: int, batch: int):
    """Neighbouring queries choose mostly, not always, the same blocks."""
    from .layer import choose_blocks

    num_blocks = num_tokens // 64
    slow = torch.rand(batch, 1, num_tokens // 16, num_blocks, device="cuda").repeat_interleave(16, dim=2)
    noise = torch.rand(batch, 1, num_tokens, num_blocks, device="cuda")
    return choose_blocks(slow + 0.1 * noise, settings_for("base", "nsa").nsa)


def seconds_per_call(run, count: int = 5) -> float:
    run()
    torch.cuda.synchronize()
    started = time.time()
    for _ in range(count):
        run()
    torch.cuda.synchronize()
    return (time.time() - started) / count


def check(kernels, masked) -> None:
    q, k, v = inputs(2048, 2)
    chosen, gradient = typical_choice(2048, 2), torch.randn_like(q)
    fused = torch.autograd.grad(kernels.selected(q, k, v, chosen), (q, k, v), gradient)
    out = kernels.selected(q, k, v, chosen), masked.selected(q, k, v, chosen)
    plain = torch.autograd.grad(out[1], (q, k, v), gradient)
    pairs = [out, *zip(fused, plain)]
    errors = [((a.float() - b.float()).norm() / b.float().norm()).item() for a, b in pairs]
    print("selected, relative difference of o, dq, dk, dv:", [round(e, 5) for e in errors], flush=True)


def main() -> None:
    settings, device = settings_for("base", "nsa"), torch.device("cuda")
    check(Kernels(settings, 2048, device, fused=True), Kernels(settings, 2048, device, fused=False))
    for num_tokens in (2048, 8192):
        batch = 65536 // num_tokens
        kernels = Kernels(settings, num_tokens, device, fused=True)
        q, k, v = inputs(num_tokens, batch)
        chosen, gradient = typical_choice(num_tokens, batch), torch.randn_like(q)
        lists = seconds_per_call(lambda: selected.visit_lists(chosen, 8))
        print(f"{num_tokens}: visit lists {lists * 1e3:.2f} ms", flush=True)
        for config in CONFIGS:
            selected.FORWARD_CONFIG = selected.DQ_CONFIG = selected.DKV_CONFIG = config
            try:
                out = kernels.selected(q, k, v, chosen)
                forward = seconds_per_call(lambda: kernels.selected(q, k, v, chosen))
                with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                    torch.autograd.grad(out, (q, k, v), gradient)
                    torch.cuda.synchronize()
                parts = {e.key: e.self_device_time_total for e in profiler.key_averages()}
                dq, dkv = parts.get("dq_kernel", 0), parts.get("dkv_kernel", 0)
                print(f"{num_tokens} selected {config}: forward {forward * 1e3:.2f} ms, "
                      f"dq {dq / 1e3:.2f} ms, dkv {dkv / 1e3:.2f} ms, "
                      f"backward total {sum(parts.values()) / 1e3:.2f} ms", flush=True)
            except Exception as error:
                print(f"{num_tokens} selected {config}: {type(error).__name__} {str(error)[:200]}", flush=True)


if __name__ == "__main__":
    main()
