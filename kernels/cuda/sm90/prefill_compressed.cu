// A block serves one item at a time: the query heads of one KV head of up to 128 / group size
// tokens are the 128 rows of Q, 64 for each of two consumer warpgroups. A producer thread keeps
// rings of 128-row tiles of K and V filled; they are walked from the last visible row to the first,
// so that the tile that needs a mask comes first.
//
// Each consumer overlaps softmax with products: while it takes the exponentials of tile j, the
// tensor cores work on its P V of tile j - 1 and on the other warpgroup's products.
//
// Threads: 2 x 128 consumers, 128 producers of which one issues copies. Shared memory: Plan.
// Bound by the tensor cores: 4 * d flop per query head and visible row; exponentials take half of
// that time on the special function units. Reads of K and V come from L2: 64 KiB per 8.4 MFLOP.

#include <type_traits>

#include "base/check.h"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_compressed_items.cuh"

namespace nsa::cuda {
namespace {

constexpr int kTileRows = kPrefillTileRows;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kConsumerRows = 64;
constexpr int kQueryRows = kConsumers * kConsumerRows;
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kConsumerWarps = kConsumers * 4;
constexpr int kConsumerRegisters = 240;
constexpr int kProducerRegisters = 24;
constexpr int kColumns = 64;      // of a swizzled part: rows of 128 bytes
constexpr int kRowBytes = 128;    // of a part
constexpr int kBarrierTurn = 1;   // named barriers kBarrierTurn + consumer: its turn to multiply
constexpr int kBarrierStore = 3;  // + consumer: its Q may be overwritten
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kLog2E = 1.4426950408889634f;

struct Maps {
  CUtensorMap q;  // [T, H, d_k], box [128 / G, G, 64]
  CUtensorMap k;  // [all rows, d_k], box [128, 64]
  CUtensorMap v;
};

struct Params {
  ItemSpace items;
  void* out;   // [T, H, d_v]
  float* lse;  // [T, H]
  int32_t num_heads, group_size;
  float scale_log2;  // softmax scale * log2(e)
};

// Dynamic shared memory. Q, K and V are parts of 64 columns, 128 rows of 128 bytes each.
template <int kDk, int kDv>
struct Plan {
  static constexpr int kStages = 2;
  static constexpr int kPartBytes = kTileRows * kRowBytes;
  static constexpr int kPartsK = kDk / kColumns, kPartsV = kDv / kColumns;
  static constexpr int kBytesQ = kPartsK * kPartBytes;  // kQueryRows == kTileRows
  static constexpr int kBytesK = kPartsK * kPartBytes;
  static constexpr int kBytesV = kPartsV * kPartBytes;
  static constexpr int kQueryBuffers = kDk > 128 ? 1 : 2;
  static constexpr int kQ = 0;
  static constexpr int kK = kQ + kQueryBuffers * kBytesQ;
  static constexpr int kV = kK + kStages * kBytesK;
  static constexpr int kBarriers = kV + kStages * kBytesV;
  static constexpr int kNumBarriers = 2 * kQueryBuffers + 4 * kStages;
  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kBarriers + kNumBarriers * 8 + kAlignment;

  uint32_t base;
  __device__ explicit Plan(uint32_t dynamic_shared)
      : base((dynamic_shared + kAlignment - 1) / kAlignment * kAlignment) {}
  __device__ uint32_t Q(int i) const { return base + kQ + i * kBytesQ; }
  __device__ uint32_t K(int i) const { return base + kK + i * kBytesK; }
  __device__ uint32_t V(int i) const { return base + kV + i * kBytesV; }
  __device__ uint32_t Barrier(int i) const { return base + kBarriers + i * 8; }
  __device__ uint32_t QFull(int i) const { return Barrier(i); }
  __device__ uint32_t QEmpty(int i) const { return Barrier(kQueryBuffers + i); }
  __device__ uint32_t KFull(int i) const { return Barrier(2 * kQueryBuffers + i); }
  __device__ uint32_t KEmpty(int i) const { return Barrier(2 * kQueryBuffers + kStages + i); }
  __device__ uint32_t VFull(int i) const { return Barrier(2 * kQueryBuffers + 2 * kStages + i); }
  __device__ uint32_t VEmpty(int i) const { return Barrier(2 * kQueryBuffers + 3 * kStages + i); }

  __device__ void Init() const {
    for (int i = 0; i < kQueryBuffers; ++i) {
      InitBarrier(QFull(i), 1);
      InitBarrier(QEmpty(i), kConsumerWarps);
    }
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(KFull(i), 1);
      InitBarrier(KEmpty(i), kConsumerWarps);
      InitBarrier(VFull(i), 1);
      InitBarrier(VEmpty(i), kConsumerWarps);
    }
    FenceBarrierInit();
  }
};

__device__ __forceinline__ int NumTiles(const ItemSpace& items, const Item& item) {
  return (items.NumRows(item.last_position() + 1) + kTileRows - 1) / kTileRows;
}

// ---- Producer: one thread -----------------------------------------------------------------------

template <int kDk, int kDv>
__device__ void Produce(const Maps& maps, const Params& p, const Plan<kDk, kDv>& plan) {
  using P = Plan<kDk, kDv>;
  RingPosition q, k, v;
  const auto load_rows = [&](const CUtensorMap& map, uint32_t to, uint32_t full, uint32_t empty,
                             uint32_t parity, int parts, int row) {
    Wait(empty, parity ^ 1);
    ArriveExpectBytes(full, parts * P::kPartBytes);
    for (int part = 0; part < parts; ++part) {
      LoadBox2(to + part * P::kPartBytes, &map, full, part * kColumns, row);
    }
  };
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = NumTiles(p.items, item);
    if (num_tiles == 0) continue;
    Wait(plan.QEmpty(q.idx), q.parity ^ 1);
    ArriveExpectBytes(plan.QFull(q.idx), P::kBytesQ);
    for (int part = 0; part < P::kPartsK; ++part) {
      LoadBox3(plan.Q(q.idx) + part * P::kPartBytes, &maps.q, plan.QFull(q.idx), part * kColumns,
               item.kv_head * p.group_size, item.first_token);
    }
    q.template Advance<P::kQueryBuffers>();
    for (int tile = num_tiles - 1; tile >= 0; --tile) {
      const int row = item.first_row + tile * kTileRows;
      load_rows(maps.k, plan.K(k.idx), plan.KFull(k.idx), plan.KEmpty(k.idx), k.parity, P::kPartsK,
                row);
      k.template Advance<P::kStages>();
      load_rows(maps.v, plan.V(v.idx), plan.VFull(v.idx), plan.VEmpty(v.idx), v.parity, P::kPartsV,
                row);
      v.template Advance<P::kStages>();
    }
  }
}

// ---- Consumers ----------------------------------------------------------------------------------

// What one thread knows of its two query rows, `lane / 4` and 8 further down, of its warp's 16.
struct Softmax {
  float max[2] = {-INFINITY, -INFINITY};  // of unscaled scores
  float sum[2] = {0, 0};                  // of this thread's columns

  // Scores (d of wgmma) become exp2(scale_log2 * (score - max)); old sums and outputs are to be
  // multiplied by `rescale`.
  __device__ __forceinline__ void Update(float (&s)[kTileRows / 2], float scale_log2,
                                         float (&rescale)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float tile_max = max[half];
#pragma unroll
      for (int i = 0; i < kTileRows / 2; i += 4) {
        tile_max = fmaxf(tile_max, fmaxf(s[i + 2 * half], s[i + 2 * half + 1]));
      }
      tile_max = fmaxf(tile_max, __shfl_xor_sync(0xffffffffu, tile_max, 1));
      tile_max = fmaxf(tile_max, __shfl_xor_sync(0xffffffffu, tile_max, 2));
      // A row that has seen nothing yet keeps exponents at -inf instead of NaN.
      const float shift = tile_max == -INFINITY ? 0.0f : tile_max * scale_log2;
      rescale[half] = Exp2(max[half] * scale_log2 - shift);
      max[half] = tile_max;
      float tile_sum = 0;
#pragma unroll
      for (int i = 0; i < kTileRows / 2; i += 4) {
#pragma unroll
        for (int j = 2 * half; j < 2 * half + 2; ++j) {
          s[i + j] = Exp2(fmaf(s[i + j], scale_log2, -shift));
          tile_sum += s[i + j];
        }
      }
      sum[half] = sum[half] * rescale[half] + tile_sum;
    }
  }
  __device__ __forceinline__ void SumOverQuad() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
      sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
    }
  }
};

// Hides rows at and after `num_visible`, for a tile whose first row is `first_row`.
__device__ __forceinline__ void Mask(float (&s)[kTileRows / 2], int first_row,
                                     const int (&num_visible)[2]) {
  const int column = first_row + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kTileRows / 2; ++i) {
    if (column + i / 4 * 8 + i % 2 >= num_visible[i / 2 % 2]) s[i] = -INFINITY;
  }
}

template <typename T>
__device__ __forceinline__ void Pack(const float (&s)[kTileRows / 2],
                                     uint32_t (&p)[kTileRows / 16][4]) {
#pragma unroll
  for (int i = 0; i < kTileRows / 4; ++i) p[i / 4][i % 4] = PackPair<T>(s[2 * i], s[2 * i + 1]);
}

// s = Q K^T of this warpgroup, issued only.
template <typename T, int kDk>
__device__ __forceinline__ void IssueScores(float (&s)[kTileRows / 2], uint32_t q, uint32_t k) {
  const uint64_t a = DescribeKMajor(q), b = DescribeKMajor(k);
#pragma unroll
  for (int step = 0; step < kDk / 16; ++step) {
    const uint64_t offset = (step / 4 * kTileRows * kRowBytes >> 4) + step % 4 * 2;
    Wgmma<T, kTileRows, Layout::kKMajor>::Shared(s, a + offset, b + offset, step > 0);
  }
  CommitWgmma();
}

// o (+)= P V of this warpgroup, issued only.
template <typename T, int kDv>
__device__ __forceinline__ void IssueOutputs(float (&o)[kDv / 2],
                                             const uint32_t (&p)[kTileRows / 16][4], uint32_t v,
                                             bool accumulate) {
  const uint64_t b = DescribeMnMajor(v, kTileRows * kRowBytes);
#pragma unroll
  for (int step = 0; step < kTileRows / 16; ++step) {
    Wgmma<T, kDv, Layout::kMnMajor>::Registers(o, p[step], b + 128 * step, accumulate || step > 0);
  }
  CommitWgmma();
}

// One arrival of a warp.
__device__ __forceinline__ void ArriveWarp(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(barrier);
}

// The rows of an item that this thread's two accumulator rows are.
struct QueryRow {
  int token;  // within the item
  int head;   // within the group
};
__device__ __forceinline__ QueryRow GetQueryRow(int row, int group_size) {
  return {row / group_size, row % group_size};
}

// Writes o / sum through the warp's own rows of Q's buffer, 16 bytes a lane. Every row of an item
// that has tiles may still see none of their rows: then 0.
template <typename T, int kDv>
__device__ __forceinline__ void StoreOutputs(const Params& p, const Item& item, int first_row,
                                             const float (&o)[kDv / 2], const float (&sum)[2],
                                             uint32_t staging) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float inverse = sum[half] > 0 ? 1.0f / sum[half] : 0.0f;
    const int row = lane / 4 + half * 8;
#pragma unroll
    for (int i = 0; i < kDv / 8; ++i) {
      const uint32_t pair =
          PackPair<T>(o[4 * i + 2 * half] * inverse, o[4 * i + 2 * half + 1] * inverse);
      const uint32_t address = staging + i / 8 * kTileRows * kRowBytes + row * kRowBytes +
                               ((i % 8) ^ (row % 8)) * 16 + lane % 4 * 4;
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(pair) : "memory");
    }
  }
  __syncwarp();
  constexpr int kChunks = kDv / 8;
#pragma unroll
  for (int i = lane; i < 16 * kChunks; i += 32) {
    const int row = i / kChunks, chunk = i % kChunks;
    const uint32_t address = staging + chunk / 8 * kTileRows * kRowBytes + row * kRowBytes +
                             ((chunk % 8) ^ (row % 8)) * 16;
    uint4 value;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(address)
                 : "memory");
    const QueryRow query = GetQueryRow(first_row + row, p.group_size);
    if (query.token >= item.num_tokens) continue;
    const int64_t to = static_cast<int64_t>(item.first_token + query.token) * p.num_heads +
                       item.kv_head * p.group_size + query.head;
    static_cast<uint4*>(p.out)[to * kChunks + chunk] = value;
  }
}

__device__ __forceinline__ void StoreLse(const Params& p, const Item& item, int first_row,
                                         const Softmax& softmax) {
  if (threadIdx.x % 4 != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const QueryRow query = GetQueryRow(first_row + threadIdx.x % 32 / 4 + half * 8, p.group_size);
    if (query.token >= item.num_tokens) continue;
    const float sum = softmax.sum[half];
    const float lse = sum > 0 ? (softmax.max[half] * p.scale_log2 + log2f(sum)) * kLn2 : -INFINITY;
    p.lse[static_cast<int64_t>(item.first_token + query.token) * p.num_heads +
          item.kv_head * p.group_size + query.head] = lse;
  }
}

// Nothing is visible: output 0, lse -inf.
template <int kDv>
__device__ void StoreEmpty(const Params& p, const Item& item, int first_row) {
  constexpr int kChunks = kDv / 8;
  const int lane = threadIdx.x % 32;
  for (int row = first_row; row < first_row + 16; ++row) {
    const QueryRow query = GetQueryRow(row, p.group_size);
    if (query.token >= item.num_tokens) return;
    const int64_t to = static_cast<int64_t>(item.first_token + query.token) * p.num_heads +
                       item.kv_head * p.group_size + query.head;
    if (lane < kChunks) static_cast<uint4*>(p.out)[to * kChunks + lane] = {0, 0, 0, 0};
    if (lane == 0) p.lse[to] = -INFINITY;
  }
}

template <typename T, int kDk, int kDv>
__device__ void Consume(const Params& p, const Plan<kDk, kDv>& plan) {
  using P = Plan<kDk, kDv>;
  const int consumer = threadIdx.x / 128, warp = threadIdx.x % 128 / 32;
  const int first_row = consumer * kConsumerRows + warp * 16;  // of this warp
  RingPosition q, k, v;
  if (consumer == 1) ArriveNamed(kBarrierTurn, kConsumers * 128);  // the first turn is consumer 0's

  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = NumTiles(p.items, item);
    if (num_tiles == 0) {
      StoreEmpty<kDv>(p, item, first_row);
      continue;
    }
    float o[kDv / 2];
    Softmax softmax;
    int num_visible[2];
    for (int half = 0; half < 2; ++half) {
      const QueryRow query = GetQueryRow(first_row + threadIdx.x % 32 / 4 + half * 8, p.group_size);
      num_visible[half] = p.items.NumRows(item.first_position + query.token + 1);
    }
    const int min_visible = p.items.NumRows(item.first_position + 1);
    float s[kTileRows / 2], rescale[2];
    uint32_t packed[kTileRows / 16][4];
    const uint32_t own_q = plan.Q(q.idx) + consumer * kConsumerRows * kRowBytes;

    // Scores of the last tile.
    Wait(plan.QFull(q.idx), q.parity);
    Wait(plan.KFull(k.idx), k.parity);
    FenceWgmma();
    IssueScores<T, kDk>(s, own_q, plan.K(k.idx));
    WaitWgmma<0>();
    PinRegisters(s);
    ArriveWarp(plan.KEmpty(k.idx));
    k.template Advance<P::kStages>();
    Mask(s, (num_tiles - 1) * kTileRows, num_visible);
    softmax.Update(s, p.scale_log2, rescale);
    Pack<T>(s, packed);

    // Outputs of tile + 1 and scores of tile together, then the softmax of tile.
    for (int tile = num_tiles - 2; tile >= 0; --tile) {
      Wait(plan.KFull(k.idx), k.parity);
      SyncNamed(kBarrierTurn + consumer, kConsumers * 128);
      PinRegisters(s);
      FenceWgmma();
      IssueScores<T, kDk>(s, own_q, plan.K(k.idx));
      Wait(plan.VFull(v.idx), v.parity);
      IssueOutputs<T, kDv>(o, packed, plan.V(v.idx), tile < num_tiles - 2);
      ArriveNamed(kBarrierTurn + 1 - consumer, kConsumers * 128);
      WaitWgmma<1>();
      PinRegisters(s);
      ArriveWarp(plan.KEmpty(k.idx));
      k.template Advance<P::kStages>();
      if ((tile + 1) * kTileRows > min_visible) Mask(s, tile * kTileRows, num_visible);
      softmax.Update(s, p.scale_log2, rescale);
      WaitWgmma<0>();
      PinRegisters(o);
      ArriveWarp(plan.VEmpty(v.idx));
      v.template Advance<P::kStages>();
#pragma unroll
      for (int j = 0; j < kDv / 2; ++j) o[j] *= rescale[j / 2 % 2];
      Pack<T>(s, packed);
    }

    // Outputs of the first tile.
    Wait(plan.VFull(v.idx), v.parity);
    PinRegisters(o);
    FenceWgmma();
    IssueOutputs<T, kDv>(o, packed, plan.V(v.idx), num_tiles > 1);
    softmax.SumOverQuad();
    StoreLse(p, item, first_row, softmax);
    WaitWgmma<0>();
    PinRegisters(o);
    ArriveWarp(plan.VEmpty(v.idx));
    v.template Advance<P::kStages>();
    // All warps of this consumer have multiplied with its Q before one overwrites it.
    SyncNamed(kBarrierStore + consumer, 128);
    StoreOutputs<T, kDv>(p, item, first_row, o, softmax.sum, plan.Q(q.idx) + first_row * kRowBytes);
    FenceAsyncShared();  // before the copy engine writes the buffer again
    ArriveWarp(plan.QEmpty(q.idx));
    q.template Advance<P::kQueryBuffers>();
  }
}

template <typename T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillCompressedKernel(const __grid_constant__ Maps maps, const __grid_constant__ Params p) {
  extern __shared__ char dynamic_shared[];
  const Plan<kDk, kDv> plan(SharedAddress(dynamic_shared));
  if (threadIdx.x == 0) plan.Init();
  __syncthreads();
  if (threadIdx.x >= kConsumers * 128) {
    ShrinkRegisters<kProducerRegisters>();
    if (threadIdx.x == kConsumers * 128) {
      PrefetchTensorMap(&maps.q);
      PrefetchTensorMap(&maps.k);
      PrefetchTensorMap(&maps.v);
      Produce<kDk, kDv>(maps, p, plan);
    }
  } else {
    GrowRegisters<kConsumerRegisters>();
    Consume<T, kDk, kDv>(p, plan);
  }
}

// ---- Launch -------------------------------------------------------------------------------------

Maps MakeMaps(const CompressedAttentionArgs& args, const PrefillRows& rows, int64_t group_size) {
  const bool bf16 = args.q.dtype() == DType::kBF16;
  const int64_t d_k = args.rows.d_k(), d_v = args.rows.d_v(), num_heads = args.q.dim(1);
  constexpr int64_t kElementBytes = 2;
  const auto tokens_per_box = static_cast<uint32_t>(kQueryRows / group_size);
  return {.q = MakeTensorMap(
              {.data = args.q.raw(),
               .bf16 = bf16,
               .dims = {{d_k, 0, kColumns},
                        {num_heads, d_k * kElementBytes, static_cast<uint32_t>(group_size)},
                        {args.q.dim(0), num_heads * d_k * kElementBytes, tokens_per_box}}}),
          .k = MakeTensorMap({.data = rows.k,
                              .bf16 = bf16,
                              .dims = {{d_k, 0, kColumns},
                                       {rows.num_rows_in_all, d_k * kElementBytes, kTileRows}}}),
          .v = MakeTensorMap({.data = rows.v,
                              .bf16 = bf16,
                              .dims = {{d_v, 0, kColumns},
                                       {rows.num_rows_in_all, d_v * kElementBytes, kTileRows}}})};
}

template <typename T, int kDk, int kDv>
void LaunchInstance(const Maps& maps, const Params& params, int num_sms, cudaStream_t stream) {
  constexpr int kBytes = Plan<kDk, kDv>::kBytes;
  const auto kernel = PrefillCompressedKernel<T, kDk, kDv>;
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) ==
            cudaSuccess);
  kernel<<<num_sms, kThreads, kBytes, stream>>>(maps, params);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << "prefill of compressed attention";
}

template <typename T>
void LaunchFor(const CompressedAttentionArgs& args, const Maps& maps, const Params& params,
               int num_sms, cudaStream_t stream) {
  const int64_t d_k = args.rows.d_k();
  if (d_k == 64) LaunchInstance<T, 64, 64>(maps, params, num_sms, stream);
  if (d_k == 128) LaunchInstance<T, 128, 128>(maps, params, num_sms, stream);
  if (d_k == 192) LaunchInstance<T, 192, 128>(maps, params, num_sms, stream);
}

}  // namespace

bool CanPrefillCompressed(const CompressedAttentionArgs& args) {
  const DType dtype = args.q.dtype();
  const int64_t d_k = args.rows.d_k(), d_v = args.rows.d_v();
  const int64_t group_size = args.q.dim(1) / args.rows.num_kv_heads();
  return (dtype == DType::kBF16 || dtype == DType::kF16) && args.rows.k.dtype() == dtype &&
         args.out.dtype() == dtype &&
         ((d_k == d_v && (d_k == 64 || d_k == 128)) || (d_k == 192 && d_v == 128)) &&
         (group_size == 2 || group_size == 4 || group_size == 8 || group_size == 16);
}

void LaunchPrefillCompressed(const CompressedAttentionArgs& args, const PrefillRows& rows,
                             cudaStream_t stream) {
  NSA_CHECK(CanPrefillCompressed(args)) << args.q.ToString() << " " << args.rows.k.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  int device = 0, num_sms = 0;
  NSA_CHECK(cudaGetDevice(&device) == cudaSuccess &&
            cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device) ==
                cudaSuccess);
  const int64_t group_size = args.q.dim(1) / args.rows.num_kv_heads();
  const int64_t item_tokens = kQueryRows / group_size;
  const Params params{.items = {.tiles = static_cast<const int4*>(args.tokens.tiles.raw()),
                                .num_tiles = static_cast<int32_t>(args.tokens.tiles.dim(0)),
                                .num_kv_heads = static_cast<int32_t>(args.rows.num_kv_heads()),
                                .item_tokens = static_cast<int32_t>(item_tokens),
                                .items_per_tile = static_cast<int32_t>(kTileTokens / item_tokens),
                                .span_tokens = static_cast<int32_t>(args.shape.span_tokens),
                                .span_stride = static_cast<int32_t>(args.shape.span_stride),
                                .rows_stride = static_cast<int32_t>(rows.rows_stride)},
                      .out = args.out.raw(),
                      .lse = args.lse.data<float>(),
                      .num_heads = static_cast<int32_t>(args.q.dim(1)),
                      .group_size = static_cast<int32_t>(group_size),
                      .scale_log2 = args.softmax_scale * kLog2E};
  const Maps maps = MakeMaps(args, rows, group_size);
  if (args.q.dtype() == DType::kBF16) {
    LaunchFor<__nv_bfloat16>(args, maps, params, num_sms, stream);
  } else {
    LaunchFor<__half>(args, maps, params, num_sms, stream);
  }
}

}  // namespace nsa::cuda
