"""Energy of prefill attention at 64k tokens: the NSA chain, its stages, a matrix product and PyTorch's dense backends,
each repeated for over a second, so that clocks are those of sustained load.

usage: prefill_energy.py LIBRARY [--json FILE]
"""

import argparse
import ctypes
import json
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
import torch.nn.functional as F

import nsa_capi
import prefill_bench

TOKENS, HEAD_DIM = 65536, 128
CLOCK_SM = 1  # nvmlClockType_t


class Meter:
    """Counters of the first GPU, from NVML."""

    def __init__(self):
        self.nvml, self.device = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        assert self.nvml.nvmlInit_v2() == 0
        assert self.nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.device)) == 0

    def joules(self):
        value = ctypes.c_ulonglong()
        assert self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.device, ctypes.byref(value)) == 0
        return value.value / 1000

    def megahertz(self):
        value = ctypes.c_uint()
        assert self.nvml.nvmlDeviceGetClockInfo(self.device, CLOCK_SM, ctypes.byref(value)) == 0
        return value.value


def measure(meter, name, call, stream):
    """Milliseconds, joules, watts and clock of `call`, which enqueues work on `stream`."""
    def repeat(seconds):
        count, clocks, begin = 0, [], time.time()
        while time.time() - begin < seconds:
            for _ in range(4):
                call()
            count += 4
            clocks.append(meter.megahertz())
            torch.cuda.synchronize()
        return count, sum(clocks) / len(clocks), time.time() - begin

    with torch.cuda.stream(stream):
        repeat(0.5)
        before = meter.joules()
        count, clock, seconds = repeat(1.5)
        joules = meter.joules() - before
    ms, watts = 1000 * seconds / count, joules / seconds
    print(f"{name:22s} {ms:8.3f} ms {joules / count:7.2f} J {watts:4.0f} W {clock:5.0f} MHz", flush=True)
    return {"what": name, "ms": ms, "joules": joules / count, "watts": watts, "mhz": clock}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--json")
    args = parser.parse_args()
    meter, stream, rows = Meter(), torch.cuda.Stream(), []
    prefill = nsa_capi.Prefill(nsa_capi.Library(args.library), stream)
    world = prefill_bench.world_of(TOKENS, num_seqs=1, d_k=HEAD_DIM, d_v=HEAD_DIM)
    call, tensors = world.prefill_call(prefill, [(0, 0, TOKENS)])
    rows.append(measure(meter, "chain", lambda: prefill.chain(call), stream))
    for stage in nsa_capi.STAGES:
        name = "compressed and choose" if stage == "choose" else stage
        rows.append(measure(meter, name, lambda: prefill.stage(call, stage), stream))
    rows.append(measure(meter, "chain", lambda: prefill.chain(call), stream))
    del call, tensors
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rows.append(measure(meter, "product", lambda: a @ b, stream))
    q = torch.randn(1, prefill_bench.HEADS, TOKENS, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    k = torch.randn(1, prefill_bench.KV_HEADS, TOKENS, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    v = torch.randn_like(k)
    for name, backend in (("fa2", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        def attend():
            F.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True)

        with sdpa_kernel(backend):
            rows.append(measure(meter, name, attend, stream))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({**nsa_capi.facts_of_run(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
