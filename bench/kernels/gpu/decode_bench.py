"""Decode attention of one layer: the fused NSA chain and the engine's full attention against PyTorch's FlashAttention-2
and cuDNN, in one run.

The library is CMake's target nsa_gpu_capi of the preset cuda-release. Its target nsa_gpu_decode_stages is the same with
the clock stamps of fused_decode_stages.cuh: --stages prints when the blocks pass each stage.

What is timed is a CUDA graph of at least MIN_LAUNCHES launches, like the layers of a step. Every launch finds other
caches than the one before, more than the L2 holds. Tables, positions and queries are the same in all launches, as in the
layers of an engine; the dense kernels likewise get the same queries.

usage: decode_bench.py LIBRARY [--check-only | --no-check] [--no-dense] [--stages STAGES_LIBRARY] [--writes]
           [--json FILE]
"""

import argparse
import json

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import decode_writes
import nsa_capi

# What a rotation over caches must exceed, so that no launch finds its data in the L2.
MIN_BYTES = 400e6
MIN_LAUNCHES = 16
KV_HEADS, D_V = 4, 128
EXTRA_CASES = [(65536, 24, 128)]  # tokens, batch, d_k; the engine's largest batch at 64k
STAGE_CASES = [(8192, 1), (65536, 1), (8192, 32), (65536, 24), (65536, 32), (65536, 64)]
WRITES_CASES = [(65536, 1), (65536, 24), (65536, 32)]


def check_all(library):
    shapes = [
        ("paper 128", {}),
        ("d 64", dict(num_heads=16, num_kv_heads=1, d_k=64, d_v=64, window=256)),
        ("d 192/128", dict(d_k=192, d_v=128)),
        ("group 4", dict(num_heads=16, num_kv_heads=4)),
        ("fp16", dict(dtype=torch.float16)),
        ("fla", dict(span_tokens=64, span_stride=64, num_local=2)),
        ("llama-nsa 32", dict(span_tokens=32, span_stride=32, block_tokens=32, num_initial=0, num_local=1)),
    ]
    lengths = [1, 2, 31, 32, 33, 47, 48, 63, 64, 65, 100, 512, 513, 1000, 1023, 1024, 1025, 1088, 1089, 2000, 4096, 5000, 8191, 8192]
    for name, options in shapes:
        world = nsa_capi.SparseWorld(len(lengths), max(lengths), extra_width=3, **options)
        call, tensors = world.decode_call(list(range(len(lengths))) + [0], [n - 1 for n in lengths] + [-1])
        library.fused_decode(call)
        torch.cuda.synchronize()
        error, differing = nsa_capi.check(world, tensors)
        print(f"check {name}: largest error {error:.4f}, {differing} choices differ by rounding")
        for index in (5, 12, 20, 23):
            check_alone(library, world, tensors, index)
    world = nsa_capi.SparseWorld(2, 131072)
    call, tensors = world.decode_call([0, 1], [131071, 70000])
    library.fused_decode(call)
    torch.cuda.synchronize()
    print("check 128k: largest error %.4f, %d choices differ by rounding" % nsa_capi.check(world, tensors))
    # A batch whose sums of blocks do not fit into shared memory.
    world = nsa_capi.SparseWorld(2, 65536)
    call, tensors = world.decode_call([0, 1] * 32, [65535 - 11 * i for i in range(64)])
    library.fused_decode(call)
    torch.cuda.synchronize()
    some = (0, 1, 30, 63)
    print("check 64k x 64: largest error %.4f, %d choices differ by rounding" % nsa_capi.check(world, tensors, tokens=some))
    for index in some:
        check_alone(library, world, tensors, index)
    check_full(library)
    decode_writes.check(library)


def check_alone(library, world, tensors, index):
    """Token `index` of a call gets the same bits when it is alone."""
    alone, single = world.decode_call(*([int(tensors[name][index])] for name in ("sequence", "position")))
    for name in ("q", "gates"):
        single[name].copy_(tensors[name][index:index + 1])
    library.fused_decode(alone)
    torch.cuda.synchronize()
    assert torch.equal(single["out"][0], tensors["out"][index]), index


def check_full(library):
    """Full attention against fp32. Few tokens run through deeper rings than many, and give the same bits."""
    positions = [131071, 70000]
    for d_k in (128, 192):
        for dtype in (torch.bfloat16, torch.float16):
            world = nsa_capi.SparseWorld(2, 131072, d_k=d_k, dtype=dtype)
            call, many = world.decode_call([0, 1] * 20, positions * 20)
            lse = torch.empty(40, world.num_heads, device="cuda")
            library.dense_decode(call, lse)
            alone, few = world.decode_call([0, 1], positions)
            few["q"].copy_(many["q"][:2])
            library.dense_decode(alone, lse)
            torch.cuda.synchronize()
            assert torch.equal(few["out"], many["out"][:2]), (d_k, dtype)
            worst = 0.0
            for index in (0, 1, 38, 39):
                expected = world.dense_expected(many, index)
                error = float((many["out"][index].float() - expected).abs().max() / expected.abs().max())
                assert error < 0.02, (d_k, dtype, index, error)
                worst = max(worst, error)
            print(f"check full attention, d {d_k}/{D_V}, {dtype}: largest error {100 * worst:.2f} % of the largest "
                  "value, bits as alone")


def time_layers(launches):
    """Median microseconds of one of `launches`, each of which has caches of its own."""
    return nsa_capi.time_graph(launches * max(1, -int(-MIN_LAUNCHES // len(launches))))


def dense_bytes(num_tokens, batch, d_k):
    return num_tokens * batch * KV_HEADS * (d_k + D_V) * 2


def dense_times(num_tokens, batch, d_k, copies):
    def randn(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    q = randn(batch, 64, 1, d_k)
    kv = [(randn(batch, KV_HEADS, num_tokens, d_k), randn(batch, KV_HEADS, num_tokens, D_V)) for _ in range(copies)]
    result = {}
    for name, backend in (("fa2", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                calls = [lambda x=x: F.scaled_dot_product_attention(q, x[0], x[1], enable_gqa=True) for x in kv]
                result[name] = time_layers(calls)
        except Exception as error:  # a backend that refuses the shape
            print(f"{name} refuses {num_tokens} x {batch}, d {d_k}/{D_V}: {str(error).splitlines()[0][:90]}")
            torch.cuda.synchronize()
    return result


def read_bandwidth():
    """Bytes per second of the fastest plain reader of 4 GB, and which one that is."""
    x = torch.empty(2**16, 2**15, device="cuda", dtype=torch.bfloat16).normal_()
    column = torch.randn(2**15, device="cuda", dtype=torch.bfloat16)
    readers = {"sum of f32": lambda: torch.sum(x.view(torch.float32)),
               "maximum of i32": lambda: torch.amax(x.view(torch.int32)),
               "bf16 matrix times vector": lambda: torch.mv(x, column),
               "f32 matrix times vector": lambda: torch.mv(x.view(torch.float32), column.view(torch.float32))}
    return max((x.numel() * 2e6 / nsa_capi.time_graph([read] * 4, repeats=10), name) for name, read in readers.items())


def num_copies(num_tokens, batch, d_k=128):
    """How many launches' caches the L2 cannot hold, and the memory can."""
    world = nsa_capi.SparseWorld(1, 64, d_k=d_k)
    needed = max(1, -int(-MIN_BYTES // (world.bytes_read(num_tokens) * batch)))
    return max(2, min(needed, 64, int(60e9 // dense_bytes(num_tokens, batch, d_k))))


def our_times(library, num_tokens, batch, d_k):
    """Microseconds of NSA and of full attention over the same tokens."""
    calls, keep = nsa_capi.layer_calls(num_copies(num_tokens, batch, d_k), batch, num_tokens, d_k=d_k)
    nsa_us = time_layers([lambda call=call: library.fused_decode(call) for call in calls])
    lse = torch.empty(batch, 64, device="cuda")
    full_us = time_layers([lambda call=call: library.dense_decode(call, lse) for call in calls])
    del keep
    torch.cuda.empty_cache()
    return nsa_us, full_us


def stage_table(library, cases, repeats=8):
    """Mean over blocks and launches of when each stage is passed, per case; and the time of the stamped kernel."""
    table = []
    for num_tokens, batch in cases:
        calls, keep = nsa_capi.layer_calls(num_copies(num_tokens, batch), batch, num_tokens)
        launches = [lambda call=call: library.fused_decode(call) for call in calls]
        us = time_layers(launches)
        samples = []
        for _ in range(repeats):
            nsa_capi.time_graph(launches, repeats=1)
            samples.append(library.decode_stages())
        times = torch.cat(samples).nanmean(0).tolist()
        table.append({"tokens": num_tokens, "batch": batch, "us": us, "blocks": samples[0].shape[0],
                      "stages": dict(zip(nsa_capi.DECODE_STAGES, times))})
        del keep
        torch.cuda.empty_cache()
    print("us after the kernel before has ended, mean over blocks: " + ", ".join(f"{c['tokens']} x {c['batch']}" for c in table))
    for stage in nsa_capi.DECODE_STAGES:
        print(f"{stage:42s}" + "".join(f"{c['stages'][stage]:9.2f}" for c in table))
    print(f"{'one launch after the other':42s}" + "".join(f"{c['us']:9.2f}" for c in table), flush=True)
    return table


def compare(library, num_tokens, batch, d_k, peak, with_dense):
    per_token = nsa_capi.SparseWorld(1, 64, d_k=d_k).bytes_read(num_tokens)
    us, full_us = our_times(library, num_tokens, batch, d_k)
    dense = {}
    if with_dense:
        copies = max(2, min(8, -int(-MIN_BYTES // dense_bytes(num_tokens, batch, d_k))))
        dense = dense_times(num_tokens, batch, d_k, copies)
        torch.cuda.empty_cache()
    row = {"tokens": num_tokens, "batch": batch, "d_k": d_k, "nsa_us": us, "full_us": full_us,
           **{f"{name}_us": t for name, t in dense.items()},
           "speedup": min(dense.values()) / us if dense else float("nan"), "gb_per_s": per_token * batch / us / 1e3,
           "byte_ratio": dense_bytes(num_tokens, 1, d_k) / per_token}
    others = ", ".join(f"{name} {t:.1f} us {dense_bytes(num_tokens, batch, d_k) / t / 1e3:.0f} GB/s ({t / us:.2f}x)"
                       for name, t in {"full": full_us, **dense}.items())
    print(f"{num_tokens:7d} x {batch:2d}, d {d_k}/{D_V}: nsa {us:7.1f} us {row['gb_per_s']:4.0f} GB/s "
          f"{1e11 * row['gb_per_s'] / peak:4.0f} % of read; {others}; bytes {row['byte_ratio']:.1f}x", flush=True)
    return row


def fastest_read(peak, reader, rows):
    """The plain reader or, if it reads faster, a dense kernel of the rows: (bytes per second, which)."""
    return max([(peak, reader)] + [
        (dense_bytes(row["tokens"], row["batch"], row["d_k"]) / row[name + "_us"] * 1e6,
         f"{name}, {row['tokens']} x {row['batch']}, d {row['d_k']}")
        for row in rows for name in ("full", "fa2", "cudnn") if name + "_us" in row])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--no-dense", action="store_true")
    parser.add_argument("--stages", metavar="STAGES_LIBRARY")
    parser.add_argument("--writes", action="store_true", help="also what is written before attention: appends, emission")
    parser.add_argument("--json")
    parser.add_argument("--lengths", default="4096,8192,16384,32768,65536,131072,262144")
    parser.add_argument("--batches", default="1,8,32,64")
    parser.add_argument("--key-dims", default="128,192")
    args = parser.parse_args()
    library = nsa_capi.Library(args.library)
    if not args.no_check:
        check_all(library)
    if args.check_only:
        return
    peak, reader = read_bandwidth()
    result = nsa_capi.facts_of_run()
    print(f"{result['device']}: read {peak / 1e12:.2f} TB/s by {reader}", flush=True)
    if args.stages:
        result["stages"] = stage_table(nsa_capi.Library(args.stages), STAGE_CASES)
    if args.writes:
        result["writes"] = decode_writes.table(library, WRITES_CASES)
    lengths, batches, key_dims = ([int(number) for number in numbers.split(",")]
                                  for numbers in (args.lengths, args.batches, args.key_dims))
    cases = [(num_tokens, batch, d_k) for d_k in key_dims for num_tokens in lengths for batch in batches]
    cases += [case for case in EXTRA_CASES if case[0] in lengths and case[2] in key_dims and case not in cases]
    rows = [compare(library, *case, peak, not args.no_dense) for case in cases]
    peak, reader = fastest_read(peak, reader, rows)
    print(f"fastest read {peak / 1e12:.2f} TB/s by {reader}", flush=True)
    for row in rows:
        row["percent_of_read"] = 1e11 * row["gb_per_s"] / peak
    result.update(read_tb_per_s=peak / 1e12, read_from=reader, rows=rows)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
