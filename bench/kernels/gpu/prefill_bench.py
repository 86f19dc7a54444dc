"""Prefill attention of one layer: the NSA chain and the engine's full attention against PyTorch's FlashAttention-2 and
cuDNN, in one run.

The library is CMake's target nsa_gpu_capi of the preset cuda-release. Contents are random: every token chooses by
itself, which is the worst case for the selected branch, where neighbours of a real prompt share blocks.

usage: prefill_bench.py LIBRARY [--check-only | --no-check] [--lengths 8192,65536] [--json FILE]
"""

import argparse
import json

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
import torch.nn.functional as F

import nsa_capi

HEADS, KV_HEADS = 64, 4
PREFIX_CASE = (63488, 2048)  # cached tokens, new tokens
LONG = 65536
INLINE_BLOCKS = 32  # PrefillTuning::inline_blocks


def world_of(num_tokens, **options):
    # The window's ring holds a whole prefill; its rows are whole blocks.
    return nsa_capi.SparseWorld(ring_lead=num_tokens + 1, num_tokens=num_tokens, **options)


def check_all(prefill):
    """The chain against fp32 on tokens at edges and at random, and its bits against those of other steps."""
    def run(call):
        torch.cuda.synchronize()
        prefill.chain(call)
        torch.cuda.synchronize()

    cases = [("paper 128", {}), ("d 192/128", dict(d_k=192, d_v=128)), ("d 64, fp16", dict(d_k=64, d_v=64, dtype=torch.float16))]
    for name, options in cases:
        world = world_of(8192, num_seqs=2, **options)
        call, t = world.prefill_call(prefill, [(0, 0, 8192), (1, 5000, 131)])
        run(call)
        generator = torch.Generator().manual_seed(1)
        some = [0, 31, 32, 63, 64, 511, 512, 1023, 1024, 2047, 2048, 4095, 4096, 8191, 8192, 8322]
        some += torch.randint(0, 8323, (48,), generator=generator).tolist()
        error, differing = nsa_capi.check(world, t, tokens=some)
        for _ in range(3):  # a race may show in some runs only
            first = t["out"].clone()
            run(call)
            assert torch.equal(first, t["out"]), name
        alone, single = world.prefill_call(prefill, [(1, 5000, 131)])
        for tensor in ("q", "gates"):
            single[tensor].copy_(t[tensor][8192:])
        run(alone)
        assert torch.equal(single["out"], t["out"][8192:]), name
        print(f"check {name}: largest error {error:.4f}, {differing} choices differ by rounding, bits as alone")
    # Several chunks, of block sums and of partials.
    world = world_of(LONG, num_seqs=1)
    call, t = world.prefill_call(prefill, [(0, 0, LONG)])
    run(call)
    error, differing = nsa_capi.check(world, t, tokens=[0, 4223, 4224, LONG // 2 - 1, LONG // 2, LONG // 2 + 1, 50000, LONG - 1])
    print(f"check {LONG}: largest error {error:.4f}, {differing} choices differ by rounding")


def matmul_ceiling():
    """TFLOP/s of a bf16 product of random matrices."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    ms = nsa_capi.time_calls(lambda: a @ b, torch.cuda.current_stream(), 40)
    return 2 * 8192**3 / ms / 1e9


def dense_times(prefix, count, d_k, d_v, repeats):
    """Milliseconds by backend; those that refuse the operands are missing."""
    q = torch.randn(1, HEADS, count, d_k, device="cuda", dtype=torch.bfloat16)
    k = torch.randn(1, KV_HEADS, prefix + count, d_k, device="cuda", dtype=torch.bfloat16)
    v = torch.randn(1, KV_HEADS, prefix + count, d_v, device="cuda", dtype=torch.bfloat16)
    gqa = dict(enable_gqa=True, is_causal=prefix == 0)
    calls = {"fa2": lambda: F.scaled_dot_product_attention(q, k, v, **gqa), "cudnn": lambda: F.scaled_dot_product_attention(q, k, v, **gqa)}
    if prefix:
        # FA2's own causal mask ends at the last key; cuDNN's does not, so it runs without a mask: PREFIX_CASE has 2 % more
        # products then.
        calls["fa2"] = lambda: torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True)
    result, refusals = {}, {}
    for name, backend in (("fa2", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                result[name] = nsa_capi.time_calls(calls[name], torch.cuda.current_stream(), repeats)
        except RuntimeError as error:
            refusals[name] = str(error).splitlines()[0][:120]
            torch.cuda.synchronize()
    return result, refusals


def keys_seen(world, prefix, count):
    """Keys of all tokens together, by the stage that attends them, and those of full attention."""
    position = torch.arange(prefix, prefix + count, dtype=torch.int64)
    rows = torch.where(position + 1 < world.span_tokens, 0, (position + 1 - world.span_tokens) // world.span_stride + 1)
    own = position // world.block_tokens
    # Blocks of tokens that are not forced; forced ones are the merge's, as are all where contexts are short.
    lists = torch.clamp(own + 1, max=world.num_selected) - world.num_initial - world.num_local
    selected = torch.where(own < INLINE_BLOCKS, 0, lists) * world.block_tokens
    forced = torch.clamp(position + 1, max=world.num_selected * world.block_tokens) - selected
    window = torch.clamp(position + 1, max=world.window)
    keys = {"compressed": rows, "selected": selected, "merge": forced + window, "full": position + 1}
    return {name: int(count.sum()) for name, count in keys.items()}


def measure(prefill, stream, ceiling, prefix, count, d_k, d_v):
    world = world_of(prefix + count, num_seqs=1, d_k=d_k, d_v=d_v)
    call, t = world.prefill_call(prefill, [(0, prefix, count)])
    repeats = 11 if count > 32768 else 21
    torch.cuda.synchronize()
    row = {"tokens": count, "prefix": prefix, "d_k": d_k, "d_v": d_v}
    row["nsa_ms"] = nsa_capi.time_calls(lambda: prefill.chain(call), stream, repeats)
    row["stages_ms"] = {name: nsa_capi.time_calls(lambda: prefill.stage(call, name), stream, repeats)
                        for name in nsa_capi.STAGES}
    row["stages_ms"]["choose"] -= row["stages_ms"]["compressed"]
    dense_repeats = 5 if count * (prefix + count) > 2**31 else 11
    row["full_ms"] = nsa_capi.time_calls(lambda: prefill.dense(call), stream, dense_repeats)
    del call, t
    torch.cuda.empty_cache()
    # What is needed.
    flop = {name: 2 * HEADS * keys * (d_k + d_v) for name, keys in keys_seen(world, prefix, count).items()}
    dense_flop = flop.pop("full")
    row["stages_tflops"] = {name: flop[name] / row["stages_ms"][name] / 1e9 for name in flop}
    row["nsa_tflops"] = sum(flop.values()) / row["nsa_ms"] / 1e9
    row["percent_of_ceiling"] = 100 * row["nsa_tflops"] / ceiling
    row["full_tflops"] = dense_flop / row["full_ms"] / 1e9
    times, row["refusals"] = dense_times(prefix, count, d_k, d_v, dense_repeats)
    for name, ms in times.items():
        row.update({f"{name}_ms": ms, f"{name}_tflops": dense_flop / ms / 1e9, f"faster_than_{name}": ms / row["nsa_ms"]})
    torch.cuda.empty_cache()
    return row


def describe(row, ceiling):
    def rate(tflops):
        return f"{tflops:.0f} TF/s {100 * tflops / ceiling:.0f} %"

    def stage(name):
        known = row["stages_tflops"].get(name)
        return f"{name} {row['stages_ms'][name]:.2f}" + (f" ({rate(known)})" if known else "")

    def backend(name):
        if name + "_ms" not in row:
            return f"{name} refuses: {row['refusals'][name]}"
        return f"{name} {row[name + '_ms']:.2f} ms {rate(row[name + '_tflops'])} ({row['faster_than_' + name]:.1f}x)"

    stages, dense = ", ".join(map(stage, row["stages_ms"])), ", ".join(map(backend, ("fa2", "cudnn")))
    return (f"{row['tokens']} after {row['prefix']}, d {row['d_k']}/{row['d_v']}: nsa {row['nsa_ms']:.3f} ms "
            f"{rate(row['nsa_tflops'])}\n"
            f"    {stages}\n    full {row['full_ms']:.2f} ms {rate(row['full_tflops'])}, {dense}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--lengths", default="4096,8192,16384,32768,65536,131072")
    parser.add_argument("--json")
    args = parser.parse_args()
    stream = torch.cuda.Stream()
    prefill = nsa_capi.Prefill(nsa_capi.Library(args.library), stream)
    if not args.no_check:
        check_all(prefill)
    if args.check_only:
        return
    ceiling = matmul_ceiling()
    print(f"{torch.cuda.get_device_name()}: bf16 product {ceiling:.0f} TF/s", flush=True)
    lengths = [int(n) for n in args.lengths.split(",")]
    cases = [(0, n, d_k, 128) for d_k in (128, 192) for n in lengths]
    rows = []
    for prefix, count, d_k, d_v in cases + [(*PREFIX_CASE, 128, 128), (*PREFIX_CASE, 192, 128)]:
        rows.append(measure(prefill, stream, ceiling, prefix, count, d_k, d_v))
        print(describe(rows[-1], ceiling), flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({**nsa_capi.facts_of_run(), "ceiling_tflops": ceiling, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
