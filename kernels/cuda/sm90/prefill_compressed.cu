// A block serves one item at a time: the query heads of one KV head of up to 128 / group size
// tokens are the 128 rows of Q, 64 for each of two consumer warpgroups. A producer thread keeps
// rings of 128-row tiles of K and V filled; they are walked from the last visible row to the first,
// so that the tile that needs a mask comes first.
//
// Each consumer overlaps softmax with products: while it takes the exponentials of tile j, the
// tensor cores work on its P V of tile j - 1 and on the other warpgroup's products. The consumers
// take turns: one issues products when the other's scores are done, so that its softmax falls into
// the other's products.
//
// Threads: 2 x 128 consumers, 128 producers of which one issues copies and one warp writes the
// outputs of tokens that see no row. Shared memory: Plan. Bound by the tensor cores: 4 * d flop per
// query head and visible row; exponentials take half of that time on the special function units.
// Reads of K and V come from L2: 64 KiB per 8.4 MFLOP.

#include "base/check.h"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_compressed_items.cuh"
#include "kernels/cuda/sm90/prefill_compressed_queries.cuh"

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
constexpr int kColumns = 64;     // of a swizzled part: rows of 128 bytes
constexpr int kRowBytes = 128;   // of a part
constexpr int kBarrierTurn = 1;  // named barriers kBarrierTurn + consumer: its turn to multiply
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
  int32_t num_heads;
  FastDivide group_size;
  float scale_log2;  // softmax scale * log2(e)
};

// What the producer tells the consumers with each Q.
struct Work {
  int32_t first_token, num_tokens, first_position, kv_head;
  int32_t num_tiles;  // 0: no more work
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
  static constexpr int kWork = kBarriers + kNumBarriers * 8;
  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kWork + kQueryBuffers * static_cast<int>(sizeof(Work)) + kAlignment;

  uint32_t base;
  Work* work;  // [kQueryBuffers]
  __device__ explicit Plan(char* dynamic_shared) {
    const uint32_t start = SharedAddress(dynamic_shared);
    base = (start + kAlignment - 1) / kAlignment * kAlignment;
    work = reinterpret_cast<Work*>(dynamic_shared + (base - start) + kWork);
  }
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
    plan.work[q.idx] = {item.first_token, item.num_tokens, item.first_position, item.kv_head,
                        num_tiles};
    ArriveExpectBytes(plan.QFull(q.idx), P::kBytesQ);
    for (int part = 0; part < P::kPartsK; ++part) {
      LoadBox3(plan.Q(q.idx) + part * P::kPartBytes, &maps.q, plan.QFull(q.idx), part * kColumns,
               item.kv_head * p.group_size.divisor(), item.first_token);
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
  Wait(plan.QEmpty(q.idx), q.parity ^ 1);
  plan.work[q.idx].num_tiles = 0;
  Arrive(plan.QFull(q.idx));
}

// Items that see no rows at all: output 0, lse -inf. One warp.
template <int kDv>
__device__ void StoreEmptyItems(const Params& p) {
  constexpr int kChunks = kDv / 8;
  const int lane = threadIdx.x % 32;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0 || NumTiles(p.items, item) > 0) continue;
    const int group_size = p.group_size.divisor();
    for (int row = 0; row < item.num_tokens * group_size; ++row) {
      const int64_t to = static_cast<int64_t>(item.first_token + row / group_size) * p.num_heads +
                         item.kv_head * group_size + row % group_size;
      if (lane < kChunks) static_cast<uint4*>(p.out)[to * kChunks + lane] = {0, 0, 0, 0};
      if (lane == 0) p.lse[to] = -INFINITY;
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

// This thread's two rows of the scores of one item: where they are and what they see.
struct QueryRows {
  int64_t head[2];  // packed token * num_heads + head, -1 if there is no such token
  int num_visible[2];
  int min_visible;  // over the item

  __device__ __forceinline__ QueryRows(const Params& p, const Work& work, int first_row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + threadIdx.x % 32 / 4 + half * 8;
      const int token = p.group_size.Quotient(row);
      head[half] = token < work.num_tokens
                       ? static_cast<int64_t>(work.first_token + token) * p.num_heads +
                             work.kv_head * p.group_size.divisor() + p.group_size.Remainder(row)
                       : -1;
      num_visible[half] = p.items.NumRows(work.first_position + token + 1);
    }
    min_visible = p.items.NumRows(work.first_position + 1);
  }
};

// Transposes 4 x 4 registers among 4 neighbouring lanes: lane l gets what lane i had in x[l] as
// x[i].
__device__ __forceinline__ void TransposeQuad(uint32_t (&x)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t received = __shfl_xor_sync(0xffffffffu, odd ? x[i] : x[i + 1], 1);
    x[i] = odd ? received : x[i];
    x[i + 1] = odd ? x[i + 1] : received;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t received = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i + 2], 2);
    x[i] = upper ? received : x[i];
    x[i + 2] = upper ? x[i + 2] : received;
  }
}

// Writes o / sum, 16 bytes a lane, and the lse. A row that sees nothing has sum 0: output 0.
template <typename T, int kDv>
__device__ __forceinline__ void StoreResults(const Params& p, const QueryRows& rows,
                                             const float (&o)[kDv / 2], const Softmax& softmax) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = softmax.sum[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const float inverse = sum > 0 ? 1.0f / sum : 0.0f;
    const int64_t head = rows.head[half];
    T* out = static_cast<T*>(p.out) + head * kDv + threadIdx.x % 4 * 8;
#pragma unroll
    for (int i = 0; i < kDv / 8; i += 4) {
      uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = 4 * (i + j) + 2 * half;
        x[j] = PackPair<T>(o[at] * inverse, o[at + 1] * inverse);
      }
      TransposeQuad(x);
      if (head >= 0) *reinterpret_cast<uint4*>(out + i * 8) = {x[0], x[1], x[2], x[3]};
    }
    if (head >= 0 && threadIdx.x % 4 == 0) {
      p.lse[head] = sum > 0 ? (softmax.max[half] * p.scale_log2 + log2f(sum)) * kLn2 : -INFINITY;
    }
  }
}

// The tiles of all items form one stream: every step multiplies the scores of the next tile, be it
// of the next item, together with the outputs of the current one.
template <typename T, int kDk, int kDv>
__device__ void Consume(const Params& p, const Plan<kDk, kDv>& plan) {
  using P = Plan<kDk, kDv>;
  const int consumer = threadIdx.x / 128;
  const int first_row = consumer * kConsumerRows + threadIdx.x % 128 / 32 * 16;  // of this warp
  RingPosition q, k, v;
  if (consumer == 1) ArriveNamed(kBarrierTurn, kConsumers * 128);  // the first turn is consumer 0's

  Wait(plan.QFull(q.idx), q.parity);
  int tile = plan.work[q.idx].num_tiles - 1;
  if (tile < 0) return;
  QueryRows rows(p, plan.work[q.idx], first_row);
  Softmax softmax;
  float s[kTileRows / 2], o[kDv / 2], rescale[2];
  uint32_t packed[kTileRows / 16][4];
  bool accumulate = false;

  Queries<T, kDk, kQueryRows> queries;
  queries.Load(plan.Q(q.idx), consumer * kConsumerRows);

  // Scores of the first tile of all.
  Wait(plan.KFull(k.idx), k.parity);
  FenceWgmma();
  queries.IssueScores(s, plan.K(k.idx));
  WaitWgmma<0>();
  PinRegisters(s);
  ArriveWarp(plan.KEmpty(k.idx));
  k.template Advance<P::kStages>();
  Mask(s, tile * kTileRows, rows.num_visible);
  softmax.Update(s, p.scale_log2, rescale);
  Pack<T>(s, packed);

  while (true) {
    const bool last = tile == 0;  // of its item
    if (last) {
      ArriveWarp(plan.QEmpty(q.idx));
      q.template Advance<P::kQueryBuffers>();
      Wait(plan.QFull(q.idx), q.parity);
      tile = plan.work[q.idx].num_tiles;
      if (tile == 0) break;
      queries.Load(plan.Q(q.idx), consumer * kConsumerRows);
    }
    --tile;
    Wait(plan.KFull(k.idx), k.parity);
    SyncNamed(kBarrierTurn + consumer, kConsumers * 128);
    PinRegisters(s);
    FenceWgmma();
    queries.IssueScores(s, plan.K(k.idx));
    Wait(plan.VFull(v.idx), v.parity);
    FenceWgmma();
    IssueOutputs<T, kDv>(o, packed, plan.V(v.idx), accumulate);
    const QueryRows old_rows = rows;
    const Softmax old_softmax = softmax;
    if (last) {
      rows = QueryRows(p, plan.work[q.idx], first_row);
      softmax = Softmax();
    }
    WaitWgmma<1>();
    ArriveNamed(kBarrierTurn + 1 - consumer, kConsumers * 128);
    PinRegisters(s);
    ArriveWarp(plan.KEmpty(k.idx));
    k.template Advance<P::kStages>();
    if ((tile + 1) * kTileRows > rows.min_visible) Mask(s, tile * kTileRows, rows.num_visible);
    softmax.Update(s, p.scale_log2, rescale);
    // A branch, true at once, which ptxas does not move the wait across: without it the softmax
    // would come after the wait and overlap with nothing.
    PinRegisters(s);
    Wait(plan.VFull(v.idx), v.parity);
    WaitWgmma<0>();
    PinRegisters(o);
    ArriveWarp(plan.VEmpty(v.idx));
    v.template Advance<P::kStages>();
    if (last) {
      StoreResults<T, kDv>(p, old_rows, o, old_softmax);
    } else {
#pragma unroll
      for (int j = 0; j < kDv / 2; ++j) o[j] *= rescale[j / 2 % 2];
    }
    accumulate = !last;
    Pack<T>(s, packed);
  }

  // Outputs of the last tile of all.
  Wait(plan.VFull(v.idx), v.parity);
  PinRegisters(o);
  FenceWgmma();
  IssueOutputs<T, kDv>(o, packed, plan.V(v.idx), accumulate);
  WaitWgmma<0>();
  PinRegisters(o);
  StoreResults<T, kDv>(p, rows, o, softmax);
}

template <typename T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillCompressedKernel(const __grid_constant__ Maps maps, const __grid_constant__ Params p) {
  extern __shared__ char dynamic_shared[];
  const Plan<kDk, kDv> plan(dynamic_shared);
  if (threadIdx.x == 0) plan.Init();
  __syncthreads();
  if (threadIdx.x >= kConsumers * 128) {
    ShrinkRegisters<kProducerRegisters>();
    if (threadIdx.x == kConsumers * 128) {
      PrefetchTensorMap(&maps.q);
      PrefetchTensorMap(&maps.k);
      PrefetchTensorMap(&maps.v);
      Produce<kDk, kDv>(maps, p, plan);
    } else if (threadIdx.x / 32 == kConsumerWarps + 1) {
      StoreEmptyItems<kDv>(p);
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
                             int num_sms, cudaStream_t stream) {
  NSA_CHECK(CanPrefillCompressed(args)) << args.q.ToString() << " " << args.rows.k.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  const int64_t group_size = args.q.dim(1) / args.rows.num_kv_heads();
  const int64_t item_tokens = kQueryRows / group_size;
  const Params params{
      .items = {.tiles = static_cast<const int4*>(args.tokens.tiles.raw()),
                .num_tiles = static_cast<int32_t>(args.tokens.tiles.dim(0)),
                .num_kv_heads = FastDivide(static_cast<int32_t>(args.rows.num_kv_heads())),
                .item_tokens = static_cast<int32_t>(item_tokens),
                .items_per_tile = FastDivide(static_cast<int32_t>(kTileTokens / item_tokens)),
                .span_tokens = static_cast<int32_t>(args.shape.span_tokens),
                .span_stride = FastDivide(static_cast<int32_t>(args.shape.span_stride)),
                .rows_stride = static_cast<int32_t>(rows.rows_stride)},
      .out = args.out.raw(),
      .lse = args.lse.data<float>(),
      .num_heads = static_cast<int32_t>(args.q.dim(1)),
      .group_size = FastDivide(static_cast<int32_t>(group_size)),
      .scale_log2 = args.softmax_scale * kLog2E};
  const Maps maps = MakeMaps(args, rows, group_size);
  if (args.q.dtype() == DType::kBF16) {
    LaunchFor<__nv_bfloat16>(args, maps, params, num_sms, stream);
  } else {
    LaunchFor<__half>(args, maps, params, num_sms, stream);
  }
}

}  // namespace nsa::cuda
