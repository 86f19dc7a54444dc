// The first of two passes over the compressed rows: log-sum-exps. With them the second one
// (prefill_compressed.cu) knows a probability as soon as it has the score: it attends without
// maxima, rescaling or a division, and sums the blocks' importances on the way.
//
// A block serves one item at a time: 16 tokens of one KV head with their 16 query heads each, 128
// query rows for each of two consumer warpgroups, in two parts of 64. The exponentials of one part
// are taken while the tensor cores compute the scores of the other. A producer thread keeps a ring
// of 128-row tiles of K filled.
//
// Threads: 2 x 128 consumers, 128 producers of which one issues copies and one warp writes what
// tokens without rows get. Shared memory: Plan. Bound by the tensor cores and, about as much, by
// the special function units: 2 * d flop and one exponential per query head and row.

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
constexpr int kParts = 2;
constexpr int kPartTokens = 4;
constexpr int kPartRows = kPartTokens * kGroup;
constexpr int kItemTokens = kConsumers * kParts * kPartTokens;
constexpr int kQueryRows = kItemTokens * kGroup;
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kConsumerWarps = kConsumers * 4;
constexpr int kConsumerRegisters = 240;
constexpr int kProducerRegisters = 24;
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kLog2E = 1.4426950408889634f;

struct Maps {
  CUtensorMap q;  // [T, H, d_k], box [16, 16, 64]
  CUtensorMap k;  // [all rows, d_k], box [128, 64]
};

struct Params {
  ItemSpace items;
  float* lse;  // [T, H]
  int32_t num_heads;
  float scale_log2;  // softmax scale * log2(e)
};

// What the producer tells the consumers with each Q.
struct Work {
  int32_t first_token, num_tokens, first_position, kv_head;
  int32_t num_tiles;  // 0: no more work
};

// Dynamic shared memory. Q and K are slices of 64 columns, of 128 bytes a row.
template <int kDk>
struct Plan {
  static constexpr bool kQueriesInRegisters = kDk <= 128;
  static constexpr int kStages = kDk > 128 ? 2 : kDk > 64 ? 4 : 6;
  static constexpr int kSlices = kDk / kColumns;
  static constexpr int kSliceBytesQ = kQueryRows * kRowBytes;
  static constexpr int kSliceBytesK = kTileRows * kRowBytes;
  static constexpr int kBytesQ = kSlices * kSliceBytesQ;
  static constexpr int kBytesK = kSlices * kSliceBytesK;
  static constexpr int kBarriers = kBytesQ + kStages * kBytesK;
  static constexpr int kNumBarriers = 2 + 2 * kStages;
  static constexpr int kWork = kBarriers + kNumBarriers * 8;
  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kWork + static_cast<int>(sizeof(Work)) + kAlignment;

  uint32_t base;
  Work* work;
  __device__ explicit Plan(char* dynamic_shared) {
    const uint32_t start = SharedAddress(dynamic_shared);
    base = (start + kAlignment - 1) / kAlignment * kAlignment;
    work = reinterpret_cast<Work*>(dynamic_shared + (base - start) + kWork);
  }
  __device__ uint32_t Q() const { return base; }
  __device__ uint32_t K(int i) const { return base + kBytesQ + i * kBytesK; }
  __device__ uint32_t Barrier(int i) const { return base + kBarriers + i * 8; }
  __device__ uint32_t QFull() const { return Barrier(0); }
  __device__ uint32_t QEmpty() const { return Barrier(1); }
  __device__ uint32_t KFull(int i) const { return Barrier(2 + i); }
  __device__ uint32_t KEmpty(int i) const { return Barrier(2 + kStages + i); }

  __device__ void Init() const {
    InitBarrier(QFull(), 1);
    InitBarrier(QEmpty(), kConsumerWarps);
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(KFull(i), 1);
      InitBarrier(KEmpty(i), kConsumerWarps);
    }
    FenceBarrierInit();
  }
};

// ---- Producer: one thread -----------------------------------------------------------------------

template <int kDk>
__device__ void Produce(const Maps& maps, const Params& p, const Plan<kDk>& plan) {
  using P = Plan<kDk>;
  uint32_t q_parity = 0;
  RingPosition k;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = p.items.NumTiles(item, kTileRows);
    if (num_tiles == 0) continue;
    Wait(plan.QEmpty(), q_parity ^ 1);
    *plan.work = {item.first_token, item.num_tokens, item.first_position, item.kv_head, num_tiles};
    ArriveExpectBytes(plan.QFull(), P::kBytesQ);
    for (int slice = 0; slice < P::kSlices; ++slice) {
      LoadBox3(plan.Q() + slice * P::kSliceBytesQ, &maps.q, plan.QFull(), slice * kColumns,
               item.kv_head * kGroup, item.first_token);
    }
    q_parity ^= 1;
    for (int tile = 0; tile < num_tiles; ++tile) {
      Wait(plan.KEmpty(k.idx), k.parity ^ 1);
      ArriveExpectBytes(plan.KFull(k.idx), P::kBytesK);
      for (int slice = 0; slice < P::kSlices; ++slice) {
        LoadBox2(plan.K(k.idx) + slice * P::kSliceBytesK, &maps.k, plan.KFull(k.idx),
                 slice * kColumns, item.first_row + tile * kTileRows);
      }
      k.template Advance<P::kStages>();
    }
  }
  Wait(plan.QEmpty(), q_parity ^ 1);
  plan.work->num_tiles = 0;
  Arrive(plan.QFull());
}

// Items that see no rows at all: lse -inf. One warp.
__device__ void StoreEmptyItems(const Params& p) {
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0 || p.items.NumTiles(item, kTileRows) > 0) continue;
    for (int row = threadIdx.x % 32; row < item.num_tokens * kGroup; row += 32) {
      p.lse[static_cast<int64_t>(item.first_token + row / kGroup) * p.num_heads +
            item.kv_head * kGroup + row % kGroup] = -INFINITY;
    }
  }
}

// ---- Consumers ----------------------------------------------------------------------------------

// Sums of a thread's columns of its two rows of a part, `lane / 4` and 8 further down. They are
// multiplied by 2^-shift. The shift does not follow the maximum as long as the sums stay in a range
// where nothing of weight is lost, which saves the search for maxima.
struct RowSums {
  float shift[2] = {0, 0};
  float sum[2] = {0, 0};

  __device__ __forceinline__ void Add(const float (&s)[kTileRows / 2], float scale_log2) {
    float more[4] = {};  // by row and column parity
#pragma unroll
    for (int i = 0; i < kTileRows / 2; ++i) {
      more[i % 4] += Exp2(fmaf(s[i], scale_log2, -shift[i / 2 % 2]));
    }
    const float total[2] = {sum[0] + (more[0] + more[1]), sum[1] + (more[2] + more[3])};
    if (IsSafe(total[0]) && IsSafe(total[1])) {
      sum[0] = total[0];
      sum[1] = total[1];
    } else {
      Shift(s, scale_log2);
    }
  }

 private:
  static __device__ __forceinline__ bool IsSafe(float total) {
    return total > 0x1p-60f && total < 0x1p60f;
  }
  // Add with maxima as shifts. Columns that are hidden score -inf.
  __device__ __forceinline__ void Shift(const float (&s)[kTileRows / 2], float scale_log2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = -INFINITY;
#pragma unroll
      for (int i = 0; i < kTileRows / 2; i += 4) {
        top = fmaxf(top, fmaxf(s[i + 2 * half], s[i + 2 * half + 1]));
      }
      top *= scale_log2;
      if (sum[half] > 0) top = fmaxf(top, shift[half] + log2f(sum[half]));
      if (top == -INFINITY) continue;  // nothing visible so far
      float total = sum[half] == 0 ? 0 : sum[half] * Exp2(shift[half] - top);
#pragma unroll
      for (int i = 0; i < kTileRows / 2; i += 4) {
        total += Exp2(fmaf(s[i + 2 * half], scale_log2, -top)) +
                 Exp2(fmaf(s[i + 2 * half + 1], scale_log2, -top));
      }
      shift[half] = top;
      sum[half] = total;
    }
  }
};

// Hides rows before `first_row` and from `end_row` on in the tile that begins at row `row`.
__device__ __forceinline__ void Mask(float (&s)[kTileRows / 2], int row, int first_row,
                                     int end_row) {
  const int column = row + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kTileRows / 2; ++i) {
    const int at = column + i / 4 * 8 + i % 2;
    if (at < first_row || at >= end_row) s[i] = -INFINITY;
  }
}

// This warp's token of one part of an item.
struct PartToken {
  int64_t head = -1;  // packed token * num_heads + first head, -1 if there is no such token
  int end_row = 0;

  PartToken() = default;
  __device__ __forceinline__ PartToken(const Params& p, const Work& work, int part) {
    const int token = (threadIdx.x / 128 * kParts + part) * kPartTokens + threadIdx.x % 128 / 32;
    head = token < work.num_tokens ? static_cast<int64_t>(work.first_token + token) * p.num_heads +
                                         work.kv_head * kGroup
                                   : -1;
    end_row = p.items.EndRow(work.first_position + token + 1);
  }
  __device__ __forceinline__ void Add(const Params& p, float (&s)[kTileRows / 2], int tile,
                                      RowSums& sums) const {
    if ((tile + 1) * kTileRows > end_row || (tile == 0 && p.items.first_row > 0)) {
      Mask(s, tile * kTileRows, p.items.first_row, end_row);
    }
    sums.Add(s, p.scale_log2);
  }
  // Adds up the columns of four neighbouring lanes, which share a row.
  __device__ __forceinline__ void Store(const Params& p, const RowSums& sums) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float mine = sums.shift[half] + log2f(sums.sum[half]);  // -inf where the sum is 0
      float top = fmaxf(mine, __shfl_xor_sync(0xffffffffu, mine, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      float sum = top == -INFINITY ? 0 : Exp2(mine - top);
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (head >= 0 && threadIdx.x % 4 == 0) {
        p.lse[head + threadIdx.x % 32 / 4 + 8 * half] =
            sum == 0 ? -INFINITY : (top + log2f(sum)) * kLn2;
      }
    }
  }
};

// The tiles of all items form one stream: the exponentials of an item's last scores overlap with
// the next item's first product.
template <typename T, int kDk>
__device__ void Consume(const Params& p, const Plan<kDk>& plan) {
  using P = Plan<kDk>;
  const int first_row = threadIdx.x / 128 * kParts * kPartRows;  // of Q
  uint32_t q_parity = 0;
  RingPosition k;
  Wait(plan.QFull(), q_parity);
  int num_tiles = plan.work->num_tiles, tile = 0;
  if (num_tiles == 0) return;
  PartToken token0(p, *plan.work, 0), token1(p, *plan.work, 1);
  RowSums sums0, sums1;
  Queries<T, kDk, kQueryRows, P::kQueriesInRegisters> q0, q1;
  q0.Load(plan.Q(), first_row);
  q1.Load(plan.Q(), first_row + kPartRows);

  float s0[kTileRows / 2], s1[kTileRows / 2];
  Wait(plan.KFull(k.idx), k.parity);
  FenceWgmma();
  q0.IssueScores(s0, plan.K(k.idx));
  WaitWgmma<0>();
  PinRegisters(s0);
  while (true) {
    PinRegisters(s1);
    FenceWgmma();
    q1.IssueScores(s1, plan.K(k.idx));
    token0.Add(p, s0, tile, sums0);
    WaitWgmma<0>();
    PinRegisters(s1);
    ArriveWarp(plan.KEmpty(k.idx));
    k.template Advance<P::kStages>();

    // The consumer is done with Q if its products have read it, from registers or shared memory.
    const bool last = tile == num_tiles - 1;
    if (P::kQueriesInRegisters ? tile == 0 : last) ArriveWarp(plan.QEmpty());
    const int old_tile = tile;
    const PartToken old_token0 = token0, old_token1 = token1;
    ++tile;
    if (last) {
      q_parity ^= 1;
      Wait(plan.QFull(), q_parity);
      num_tiles = plan.work->num_tiles;
      if (num_tiles == 0) break;
      tile = 0;
      token0 = PartToken(p, *plan.work, 0);
      token1 = PartToken(p, *plan.work, 1);
      q0.Load(plan.Q(), first_row);
      q1.Load(plan.Q(), first_row + kPartRows);
    }
    Wait(plan.KFull(k.idx), k.parity);
    PinRegisters(s0);
    FenceWgmma();
    q0.IssueScores(s0, plan.K(k.idx));
    old_token1.Add(p, s1, old_tile, sums1);
    WaitWgmma<0>();
    PinRegisters(s0);
    if (last) {
      old_token0.Store(p, sums0);
      old_token1.Store(p, sums1);
      sums0 = sums1 = RowSums();
    }
  }
  token1.Add(p, s1, tile - 1, sums1);
  token0.Store(p, sums0);
  token1.Store(p, sums1);
}

template <typename T, int kDk>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillLseKernel(const __grid_constant__ Maps maps, const __grid_constant__ Params p) {
  extern __shared__ char dynamic_shared[];
  const Plan<kDk> plan(dynamic_shared);
  if (threadIdx.x == 0) plan.Init();
  __syncthreads();
  if (threadIdx.x >= kConsumers * 128) {
    ShrinkRegisters<kProducerRegisters>();
    if (threadIdx.x == kConsumers * 128) {
      PrefetchTensorMap(&maps.q);
      PrefetchTensorMap(&maps.k);
      Produce<kDk>(maps, p, plan);
    } else if (threadIdx.x / 32 == kConsumerWarps + 1) {
      StoreEmptyItems(p);
    }
  } else {
    GrowRegisters<kConsumerRegisters>();
    Consume<T, kDk>(p, plan);
  }
}

// ---- Launch -------------------------------------------------------------------------------------

template <typename T, int kDk>
void LaunchInstance(const Maps& maps, const Params& params, int num_sms, cudaStream_t stream) {
  constexpr int kBytes = Plan<kDk>::kBytes;
  const auto kernel = PrefillLseKernel<T, kDk>;
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) ==
            cudaSuccess);
  kernel<<<num_sms, kThreads, kBytes, stream>>>(maps, params);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << "prefill of log-sum-exps";
}

template <typename T>
void LaunchFor(int64_t d_k, const Maps& maps, const Params& params, int num_sms,
               cudaStream_t stream) {
  if (d_k == 64) LaunchInstance<T, 64>(maps, params, num_sms, stream);
  if (d_k == 128) LaunchInstance<T, 128>(maps, params, num_sms, stream);
  if (d_k == 192) LaunchInstance<T, 192>(maps, params, num_sms, stream);
}

Maps MakeMaps(const CompressedAttentionArgs& args, const PrefillRows& rows) {
  const bool bf16 = args.q.dtype() == DType::kBF16;
  const int64_t d_k = args.rows.d_k(), num_heads = args.q.dim(1);
  constexpr int64_t kElementBytes = 2;
  return {
      .q = MakeTensorMap({.data = args.q.raw(),
                          .bf16 = bf16,
                          .dims = {{d_k, 0, kColumns},
                                   {num_heads, d_k * kElementBytes, kGroup},
                                   {args.q.dim(0), num_heads * d_k * kElementBytes, kItemTokens}}}),
      .k = MakeTensorMap(
          {.data = rows.k,
           .bf16 = bf16,
           .dims = {{d_k, 0, kColumns}, {rows.num_rows_in_all, d_k * kElementBytes, kTileRows}}})};
}

}  // namespace

void LaunchPrefillLse(const CompressedAttentionArgs& args, const PrefillRows& rows, int num_sms,
                      cudaStream_t stream) {
  NSA_CHECK(CanPrefillCompressed(args)) << args.q.ToString() << " " << args.rows.k.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  const Params params{.items = MakeItemSpace(args, rows, kItemTokens),
                      .lse = args.lse.data<float>(),
                      .num_heads = static_cast<int32_t>(args.q.dim(1)),
                      .scale_log2 = args.softmax_scale * kLog2E};
  const Maps maps = MakeMaps(args, rows);
  if (args.q.dtype() == DType::kBF16) {
    LaunchFor<__nv_bfloat16>(args.rows.d_k(), maps, params, num_sms, stream);
  } else {
    LaunchFor<__half>(args.rows.d_k(), maps, params, num_sms, stream);
  }
}

}  // namespace nsa::cuda
