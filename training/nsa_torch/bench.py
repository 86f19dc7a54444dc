"""Checks the fast path against masked attention on this GPU, then times training steps.

    python -m nsa_torch.bench [check] [full_2k] [nsa_2k] [nsa_2k_warm] [nsa_8k] [full_8k]
"""

import sys
import time
import traceback

import torch

from .layer import Context
from .model import FastModel, initialise
from .optim import Optimiser
from .train import align_positions, settings_for

BATCH_TOKENS = 65536


def make(attention: str, compiled: bool, dtype):
    model = FastModel(settings_for("base", attention), torch.device("cuda"), dtype, compiled)
    initialise(model, 3)
    generator = torch.Generator(device="cuda").manual_seed(1)
    with torch.no_grad():  # no zeros: every path must matter
        for parameter in model.parameters():
            if parameter.dim() > 1:
                scale = 0.7 * parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator, device="cuda") * scale)
    return model


def gradients(model, tokens, context: Context):
    losses, _, align = model.losses(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), context)
    (losses.mean() + align).backward()
    return losses.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative(a, b) -> float:
    return ((a - b).norm() / b.norm().clamp(min=1e-12)).item()


def check(attention: str) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(3, 8192, (2, 2049), device="cuda")
    positions = torch.randint(0, 2048, (2, 128), device="cuda")
    options = {"align_positions": positions} if attention == "nsa" else {}
    results = []
    for compiled, dtype in ((False, torch.float32), (False, torch.bfloat16), (True, torch.bfloat16)):
        model = make(attention, compiled, dtype)
        results.append(gradients(model, tokens, model.context(2048, **options)))
    exact, plain, fused = results
    for name in exact[1]:
        error = relative(fused[1][name], exact[1][name]), relative(plain[1][name], exact[1][name])
        if name.startswith("model.layers.3") or "embed" in name:
            print(f"  {name}: fused {error[0]:.4f}, masked bf16 {error[1]:.4f}")
    print(f"{attention}: loss fused {relative(fused[0], exact[0]):.5f}, masked bf16 {relative(plain[0], exact[0]):.5f}")


def one_step(model, optimiser, tokens, targets, options) -> None:
    if model.settings.attention == "nsa":
        options = dict(options, align_positions=align_positions(torch.ones_like(tokens), 128))
    losses, _, align = model.losses(tokens, targets, model.context(tokens.shape[1], **options))
    (losses.mean() + align).backward()
    optimiser.step(0.1)


def time_steps(attention: str, context: int, options: dict, profile: bool) -> None:
    model = make(attention, True, torch.bfloat16)
    optimiser = Optimiser(model, 0.02, 0.003, 0.0007, fused=True)
    tokens = torch.randint(3, 8192, (BATCH_TOKENS // context, context), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    started = time.time()
    one_step(model, optimiser, tokens, tokens, options)
    torch.cuda.synchronize()
    compile_s, started, count = time.time() - started, time.time(), 8
    for _ in range(count):
        one_step(model, optimiser, tokens, tokens, options)
    torch.cuda.synchronize()
    seconds = (time.time() - started) / count
    memory = torch.cuda.max_memory_allocated() / 1e9
    print(f"{attention} {context} {options}: {BATCH_TOKENS / seconds / 1e6:.3f} M tokens/s, "
          f"{seconds * 1e3:.1f} ms, first step {compile_s:.1f} s, {memory:.1f} GB", flush=True)
    if profile:
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profiler:
            one_step(model, optimiser, tokens, tokens, options)
            torch.cuda.synchronize()
        events = sorted(profiler.key_averages(), key=lambda e: -e.self_device_time_total)[:14]
        for event in events:
            print(f"    {event.self_device_time_total / 1e3:7.2f} ms {event.count:4d} x {event.key[:90]}")


def main() -> None:
    print(torch.__version__, torch.cuda.get_device_name(), flush=True)
    jobs = {
        "check": lambda: check("nsa"),
        "full_2k": lambda: time_steps("full", 2048, {}, profile=True),
        "nsa_2k": lambda: time_steps("nsa", 2048, {}, profile=True),
        "nsa_2k_warm": lambda: time_steps("nsa", 2048, {"sel_dense": True}, profile=False),
        "nsa_8k": lambda: time_steps("nsa", 8192, {}, profile=True),
        "full_8k": lambda: time_steps("full", 8192, {}, profile=False),
    }
    names = sys.argv[1:] or list(jobs)
    for job in (jobs[name] for name in names):
        started = time.time()
        try:
            job()
        except Exception:
            traceback.print_exc(limit=-4)
        print(f"  [{time.time() - started:.1f} s]", flush=True)


if __name__ == "__main__":
    main()
