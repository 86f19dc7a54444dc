"""Decode attention of one layer: the fused NSA chain against PyTorch's FlashAttention-2 and cuDNN, in one run.

The library, built in the source root:
  F="-std=c++20 -O3 --expt-relaxed-constexpr -Xcompiler=-fPIC -I."
  nvcc $F -gencode=arch=compute_90a,code=sm_90a -c kernels/cuda/sm90/fused_decode.cu -o fused_decode.o
  nvcc $F -x cu -c bench/kernels/gpu/capi.cc -o capi.o
  nvcc $F -shared -o libnsa_gpu.so fused_decode.o capi.o base/check.cc base/dtype.cc base/tensor_view.cc

usage: decode_bench.py LIBRARY [--check-only] [--json FILE]
"""

import argparse
import json

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import nsa_capi

# What a rotation over caches must exceed, so that no launch finds its data in the L2.
MIN_BYTES = 400e6


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
        # The same bits alone.
        for index in (5, 12, 20, 23):
            alone, single = world.decode_call([index], [lengths[index] - 1])
            single["q"].copy_(tensors["q"][index:index + 1])
            single["gates"].copy_(tensors["gates"][index:index + 1])
            library.fused_decode(alone)
            torch.cuda.synchronize()
            assert torch.equal(single["out"][0], tensors["out"][index]), (name, index)
    world = nsa_capi.SparseWorld(2, 131072)
    call, tensors = world.decode_call([0, 1], [131071, 70000])
    library.fused_decode(call)
    torch.cuda.synchronize()
    print("check 128k: largest error %.4f, %d choices differ by rounding" % nsa_capi.check(world, tensors))


def dense_times(num_tokens, batch, copies):
    heads, kv_heads, d = 64, 4, 128
    q = torch.randn(batch, heads, 1, d, device="cuda", dtype=torch.bfloat16)
    kv = [torch.randn(2, batch, kv_heads, num_tokens, d, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    result = {}
    for name, backend in (("fa2", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                calls = [lambda x=x: F.scaled_dot_product_attention(q, x[0], x[1], enable_gqa=True) for x in kv]
                result[name] = nsa_capi.time_graph(calls)
        except Exception as error:  # a backend that refuses the shape
            print(f"{name} refuses {num_tokens} x {batch}: {str(error).splitlines()[0][:90]}")
            torch.cuda.synchronize()
    return result


def read_bandwidth():
    """Bytes per second that a plain reduction over 4 GB reads."""
    x = torch.empty(2**30, device="cuda", dtype=torch.float32).normal_()
    us = nsa_capi.time_graph([lambda: torch.sum(x)], repeats=10)
    return x.numel() * 4 / us * 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--no-dense", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--lengths", default="4096,8192,16384,32768,65536,131072,262144")
    parser.add_argument("--batches", default="1,8,32,64")
    args = parser.parse_args()
    library = nsa_capi.Library(args.library)
    if not args.no_check:
        check_all(library)
    if args.check_only:
        return
    peak = read_bandwidth()
    print(f"{torch.cuda.get_device_name()}: read {peak / 1e12:.2f} TB/s")
    rows = []
    for num_tokens in map(int, args.lengths.split(",")):
        for batch in map(int, args.batches.split(",")):
            if num_tokens * batch > 65536 * 64:
                continue
            world = nsa_capi.SparseWorld(1, 64)
            per_token = world.bytes_read(num_tokens)
            dense_bytes = num_tokens * 4 * 256 * 2
            groups = max(1, min(64, -int(-MIN_BYTES // (per_token * batch))))
            groups = max(1, min(groups, int(60e9 // (dense_bytes * batch))))
            world = nsa_capi.SparseWorld(batch * groups, num_tokens)
            calls, keep = [], []
            for group in range(groups):
                call, tensors = world.decode_call(list(range(group * batch, (group + 1) * batch)), [num_tokens - 1] * batch)
                calls.append(lambda call=call: library.fused_decode(call))
                keep.append(tensors)
            us = nsa_capi.time_graph(calls)
            del world, keep, calls
            torch.cuda.empty_cache()
            dense = {} if args.no_dense else dense_times(num_tokens, batch, max(1, min(8, -int(-MIN_BYTES // (dense_bytes * batch)))))
            torch.cuda.empty_cache()
            best = min(dense.values()) if dense else float("nan")
            row = {"tokens": num_tokens, "batch": batch, "nsa_us": us, **{f"{k}_us": v for k, v in dense.items()},
                   "speedup": best / us, "gb_per_s": per_token * batch / us / 1e3,
                   "percent_of_read": 100 * per_token * batch / us * 1e6 / peak, "byte_ratio": dense_bytes / per_token}
            rows.append(row)
            print(f"{num_tokens:7d} x {batch:2d}: nsa {us:7.1f} us {row['percent_of_read']:4.0f} % of read; "
                  + ", ".join(f"{k} {v:.1f} us" for k, v in dense.items())
                  + f"; {row['speedup']:.2f}x (bytes {row['byte_ratio']:.1f}x)", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "read_tb_per_s": peak / 1e12, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
