#pragma once
// StoreProjections as a part of kernels: what they get, and how a block stores a token.

#include <algorithm>
#include <cstdint>

#include "kernels/checks.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/device/paged_rows.cuh"
#include "kernels/cuda/device/rotation.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"
#include "kernels/kv_store.h"

namespace nsa::cuda {

inline constexpr int kStoreThreads = 256;
inline constexpr int64_t kMinStorePacks = kStoreThreads;  // below, a block is not worth its angles
// Tokens * KV heads of a step from which on the kernel behind may start before the stores have
// waited. With less, attention leaves multiprocessors idle, and steps take longer if it starts so
// early: measured with 1 to 24 tokens and 4 KV heads on an H200 (bench/lab/README.md).
inline constexpr int64_t kMinEarlyHeads = 32;
inline constexpr int kMaxStreams = static_cast<int>(StoreProjectionsArgs::kMaxStreams);

template <typename Cache>
struct StoreStream {
  int32_t k_column, v_column;
  bool rotate_k;
  DevicePagedKv<Cache> kv;
};

template <typename T, typename Cache>
struct StoreParams {
  const int32_t* sequence;  // [T]
  const int32_t* position;  // [T]
  const T* packed;          // [T, num_columns]
  const float* inv_freq;    // [d_k / 2]
  T* q;                     // [T, num_heads, d_k]
  float* gate_logits;       // [T, num_heads, 3], or null
  int64_t num_columns;
  int32_t q_column, gates_column;
  int32_t num_heads, num_kv_heads, d_k, d_v;
  int32_t num_streams;
  bool waits_first;  // before the kernel behind may start
  StoreStream<Cache> streams[kMaxStreams];
};

// Rotates elements [c, c + kPack) and [c + d/2, ..) of a head, or copies them.
template <int kPack, typename T, typename To>
__device__ __forceinline__ void StorePair(const T* from, To* to, int32_t c, int32_t half,
                                          const float* cos, const float* sin, bool rotate) {
  float a[kPack], b[kPack];
  LoadPack(from + c, a);
  LoadPack(from + c + half, b);
  if (rotate) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const float low = a[i], high = b[i];
      const SinCos angle{sin[c + i], cos[c + i]};
      a[i] = RotateLow(low, high, angle);
      b[i] = RotateHigh(low, high, angle);
    }
  }
  StorePack(a, to + c);
  StorePack(b, to + c + half);
}

// Work of a token, in this order: packs of pairs of the query heads, then per stream packs of pairs
// of the key heads and packs of the value heads, then the gates one by one.
// Share `share` of `num_shares` of them, by a block of kStoreThreads.
template <int kPack, typename T, typename Cache>
__device__ void StoreToken(const StoreParams<T, Cache>& params, int64_t token, int32_t share,
                           int32_t num_shares) {
  __shared__ float cos[kMaxHeadDim / 2], sin[kMaxHeadDim / 2];
  const int32_t position = params.position[token];
  const int64_t sequence = params.sequence[token];
  const bool is_padding = position < 0;
  const int32_t half = params.d_k / 2;
  // Angles depend on no other kernel.
  for (int32_t c = static_cast<int32_t>(threadIdx.x); c < half; c += kStoreThreads) {
    const SinCos rotation = RotationAt(is_padding ? 0 : position, params.inv_freq[c]);
    cos[c] = rotation.cos;
    sin[c] = rotation.sin;
  }
  if (params.waits_first) {
    WaitThenAllowFollowing();
  } else {
    BeginDependentKernel();
  }
  __syncthreads();

  const int32_t k_packs = half / kPack, v_packs = params.d_v / kPack;
  const int32_t q_work = params.num_heads * k_packs;
  const int32_t k_work = params.num_kv_heads * k_packs;
  const int32_t stream_work = k_work + params.num_kv_heads * v_packs;
  const int32_t gates_work = params.gate_logits == nullptr ? 0 : params.num_heads * 3;
  const int32_t gates_start = q_work + params.num_streams * stream_work;
  const T* packed = params.packed + token * params.num_columns;

  for (int32_t work = share * kStoreThreads + static_cast<int32_t>(threadIdx.x);
       work < gates_start + gates_work; work += num_shares * kStoreThreads) {
    if (work < q_work) {
      const int32_t head = work / k_packs, c = (work - head * k_packs) * kPack;
      T* q = params.q + (token * params.num_heads + head) * params.d_k;
      if (is_padding) {
        const float zeros[kPack] = {};
        StorePack(zeros, q + c);
        StorePack(zeros, q + c + half);
      } else {
        StorePair<kPack>(packed + params.q_column + head * params.d_k, q, c, half, cos, sin, true);
      }
    } else if (work >= gates_start) {
      const int32_t gate = work - gates_start;
      params.gate_logits[token * gates_work + gate] =
          is_padding ? 0.0F : ToFloat(packed[params.gates_column + gate]);
    } else if (!is_padding) {
      const int32_t in_streams = work - q_work, i = in_streams / stream_work;
      const int32_t in_stream = in_streams - i * stream_work;
      const StoreStream<Cache>& stream = params.streams[i];
      if (in_stream < k_work) {
        const int32_t head = in_stream / k_packs, c = (in_stream - head * k_packs) * kPack;
        Cache* k = stream.kv.k + stream.kv.RowIndex(sequence, head, position) * params.d_k;
        StorePair<kPack>(packed + stream.k_column + head * params.d_k, k, c, half, cos, sin,
                         stream.rotate_k);
      } else {
        const int32_t in_v = in_stream - k_work;
        const int32_t head = in_v / v_packs, c = (in_v - head * v_packs) * kPack;
        Cache* v = stream.kv.v + stream.kv.RowIndex(sequence, head, position) * params.d_v;
        float values[kPack];
        LoadPack(packed + stream.v_column + head * params.d_v + c, values);
        StorePack(values, v + c);
      }
    }
  }
}

template <typename T, typename Cache>
StoreParams<T, Cache> MakeStoreParams(const StoreProjectionsArgs& args) {
  const PagedKv& first = args.streams[0].kv;
  StoreParams<T, Cache> params{
      .sequence = static_cast<const int32_t*>(args.tokens.sequence.raw()),
      .position = static_cast<const int32_t*>(args.tokens.position.raw()),
      .packed = static_cast<const T*>(args.packed.raw()),
      .inv_freq = static_cast<const float*>(args.inv_freq.raw()),
      .q = static_cast<T*>(args.q.raw()),
      .gate_logits = static_cast<float*>(args.gate_logits.raw()),
      .num_columns = args.packed.dim(1),
      .q_column = static_cast<int32_t>(args.q_column),
      .gates_column = static_cast<int32_t>(args.gates_column),
      .num_heads = static_cast<int32_t>(args.q.dim(1)),
      .num_kv_heads = static_cast<int32_t>(first.num_kv_heads()),
      .d_k = static_cast<int32_t>(first.d_k()),
      .d_v = static_cast<int32_t>(first.d_v()),
      .num_streams = static_cast<int32_t>(args.num_streams),
      .waits_first = args.tokens.num_tokens() * first.num_kv_heads() < kMinEarlyHeads};
  for (int64_t i = 0; i < args.num_streams; ++i) {
    const KvStream& from = args.streams[i];
    params.streams[i] = {.k_column = static_cast<int32_t>(from.k_column),
                         .v_column = static_cast<int32_t>(from.v_column),
                         .rotate_k = from.rotate_k,
                         .kv = MakeDevicePagedKv<Cache>(from.kv)};
  }
  return params;
}

// True if packs of this many elements never straddle a head or an alignment boundary.
inline bool CanPackStores(const StoreProjectionsArgs& args, int64_t pack) {
  const auto fits = [pack](int64_t columns) { return columns % pack == 0; };
  const PagedKv& first = args.streams[0].kv;
  bool result =
      fits(first.d_k() / 2) && fits(first.d_v()) && fits(args.packed.dim(1)) && fits(args.q_column);
  for (int64_t i = 0; i < args.num_streams; ++i) {
    result = result && fits(args.streams[i].k_column) && fits(args.streams[i].v_column);
  }
  return result;
}

// Blocks that share a token: one if there are many tokens, more where the device would be idle.
inline int64_t NumStoreShares(const StoreProjectionsArgs& args, int64_t pack, int64_t num_blocks) {
  const int64_t num_packs = args.packed.dim(1) / pack;
  return std::clamp<int64_t>(num_packs / kMinStorePacks, 1,
                             CeilDiv(num_blocks, args.tokens.num_tokens()));
}

}  // namespace nsa::cuda
