// A block serves one item at a time: 16 tokens of one KV head with their 16 query heads each. Two
// consumer warpgroups compute scores Q K^T of 8 tokens each against tiles of 128 compressed rows,
// turn them into probabilities with the lse of CompressedAttention, and sum these over heads and
// into block importances, which go to a small buffer of this thread block in L2. Three more warps
// rank the blocks of an item while the consumers work on the next one, and a producer warp keeps
// the tiles coming. Scores never leave registers.
//
// A consumer has two accumulators of 64 query rows, its parts: the tensor cores fill one while the
// exponentials of the other are taken. The consumers take turns: one multiplies while the other one
// takes its last exponentials and sums. A warp serves two tokens, and rows are dealt out so that a
// thread holds four heads of one of them: with g = lane / 4, row g + 8 * half of a part is head
// g % 4 * 4 + part * 2 + half of token g / 4. That leaves 4 lanes to sum over.
//
// Threads: 2 x 128 consumers, 1 producer warp, 3 ranking warps. Shared memory: Plan. Bound by the
// tensor cores and, about as much, by the special function units: 2 * d flop and one exponential
// per query head and row.

#include "base/check.h"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/cuda/sm90/prefill_compressed_items.cuh"
#include "kernels/cuda/sm90/prefill_compressed_queries.cuh"
#include "kernels/cuda/sm90/prefill_select.h"
#include "kernels/cuda/sm90/prefill_select_best.cuh"
#include "kernels/cuda/sm90/prefill_select_importance.cuh"

namespace nsa::cuda {
namespace {

constexpr int kGroup = 16;  // query heads of a token
constexpr int kConsumers = 2;
constexpr int kPartRows = 64;
constexpr int kWarpRows = 16;  // of a part
constexpr int kWarpTokens = 2;
constexpr int kConsumerTokens = 4 * kWarpTokens;
constexpr int kItemTokens = kConsumers * kConsumerTokens;
constexpr int kQueryRows = kItemTokens * kGroup;
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kConsumerWarps = kConsumers * 4;
constexpr int kRankingWarps = 3;
constexpr int kConsumerRegisters = 224;
constexpr int kOtherRegisters = 56;
constexpr int kColumns = 64;     // of a swizzled slice: rows of 128 bytes
constexpr int kRowBytes = 128;   // of a slice
constexpr int kBuffers = 2;      // of importances, per thread block
constexpr int kBarrierTurn = 1;  // named barriers kBarrierTurn + consumer: its turn to multiply
constexpr float kLog2E = 1.4426950408889634f;

struct Maps {
  CUtensorMap q;  // [H, T, 4 x stride 4 heads, d_k], box [2, 2, 4, 64]: a warp's rows of one part
  CUtensorMap k;  // [all rows, d_k], box [128, 64]
};

struct Params {
  ItemSpace items;
  SelectRule rule;
  const float* lse;   // [T, H]
  int32_t* blocks;    // [T, num_kv_heads, num_selected]
  float* importance;  // [grid, kBuffers, kItemTokens, importance_stride]
  int64_t importance_stride;
  int32_t num_heads;
  float scale_log2;  // softmax scale * log2(e)
};

// What the producer tells the consumers with each Q.
struct Work {
  int32_t first_position;
  int32_t num_tiles;                     // 0: no more work
  float lse_log2[kItemTokens * kGroup];  // [token, head]
};

// Dynamic shared memory. Q and K are slices of 64 columns. Rows of Q: consumer, part, warp, half,
// token, g % 4.
template <int kDk>
struct Plan {
  static constexpr int kStages = kDk > 128 ? 2 : 3;
  static constexpr int kSlices = kDk / kColumns;
  static constexpr int kSliceBytesQ = kQueryRows * kRowBytes;
  static constexpr int kSliceBytesK = kTileRows * kRowBytes;
  static constexpr int kBytesQ = kSlices * kSliceBytesQ;
  static constexpr int kBytesK = kSlices * kSliceBytesK;
  static constexpr int kLists = kBytesQ + kStages * kBytesK;
  static constexpr int kListBytes = kMaxCandidates * sizeof(RankKey);
  static constexpr int kWork = kLists + kRankingWarps * kListBytes;
  static constexpr int kBarriers = kWork + static_cast<int>(sizeof(Work));
  static constexpr int kNumBarriers = 2 + 2 * kStages + 2 * kBuffers;
  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kBarriers + kNumBarriers * 8 + kAlignment;

  uint32_t base;
  char* start;  // the same address, generic
  __device__ explicit Plan(char* dynamic_shared) {
    const uint32_t address = SharedAddress(dynamic_shared);
    base = (address + kAlignment - 1) / kAlignment * kAlignment;
    start = dynamic_shared + (base - address);
  }
  __device__ Work& work() const { return *reinterpret_cast<Work*>(start + kWork); }
  __device__ RankKey* List(int ranking_warp) const {
    return reinterpret_cast<RankKey*>(start + kLists) + ranking_warp * kMaxCandidates;
  }
  __device__ uint32_t Q() const { return base; }
  __device__ uint32_t K(int i) const { return base + kBytesQ + i * kBytesK; }
  __device__ uint32_t Barrier(int i) const { return base + kBarriers + i * 8; }
  __device__ uint32_t QFull() const { return Barrier(0); }
  __device__ uint32_t QEmpty() const { return Barrier(1); }
  __device__ uint32_t KFull(int i) const { return Barrier(2 + i); }
  __device__ uint32_t KEmpty(int i) const { return Barrier(2 + kStages + i); }
  // Importances of an item in buffer i.
  __device__ uint32_t Full(int i) const { return Barrier(2 + 2 * kStages + i); }
  __device__ uint32_t Empty(int i) const { return Barrier(2 + 2 * kStages + kBuffers + i); }

  __device__ void Init() const {
    InitBarrier(QFull(), 1);
    InitBarrier(QEmpty(), kConsumerWarps);
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(KFull(i), 1);
      InitBarrier(KEmpty(i), kConsumerWarps);
    }
    for (int i = 0; i < kBuffers; ++i) {
      InitBarrier(Full(i), kConsumerWarps);
      InitBarrier(Empty(i), kRankingWarps);
    }
    FenceBarrierInit();
  }
};

// ---- Producer: one warp -------------------------------------------------------------------------

template <int kDk>
__device__ void LoadQueries(const Maps& maps, const Plan<kDk>& plan, const Item& item) {
  using P = Plan<kDk>;
  for (int slice = 0; slice < P::kSlices; ++slice) {
    for (int i = 0; i < kQueryRows / kWarpRows; ++i) {
      const int warp = i % 4, part = i / 4 % kParts, consumer = i / 4 / kParts;
      LoadBox4(plan.Q() + slice * P::kSliceBytesQ + i * kWarpRows * kRowBytes, &maps.q,
               plan.QFull(), slice * kColumns, 0,
               item.first_token + consumer * kConsumerTokens + warp * kWarpTokens,
               item.kv_head * kGroup + part * 2);
    }
  }
}

__device__ __forceinline__ void LoadLse(const Params& p, const Item& item, Work& work) {
  for (int i = threadIdx.x % 32; i < kItemTokens * kGroup; i += 32) {
    const int token = min(i / kGroup, item.num_tokens - 1);  // spare places repeat the last token
    work.lse_log2[i] = p.lse[static_cast<int64_t>(item.first_token + token) * p.num_heads +
                             item.kv_head * kGroup + i % kGroup] *
                       kLog2E;
  }
}

template <int kDk, typename G>
__device__ void Produce(const Maps& maps, const Params& p, const Plan<kDk>& plan) {
  using P = Plan<kDk>;
  const bool leader = threadIdx.x % 32 == 0;
  uint32_t q_parity = 0;
  RingPosition k;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = G::NumTiles(p.rule, item);
    if (num_tiles == 0) continue;
    Wait(plan.QEmpty(), q_parity ^ 1);
    LoadLse(p, item, plan.work());
    if (leader) {
      plan.work().first_position = item.first_position;
      plan.work().num_tiles = num_tiles;
    }
    __syncwarp();
    if (leader) {
      ArriveExpectBytes(plan.QFull(), P::kBytesQ);
      LoadQueries(maps, plan, item);
    }
    q_parity ^= 1;
    for (int tile = 0; tile < num_tiles; ++tile) {
      Wait(plan.KEmpty(k.idx), k.parity ^ 1);
      if (leader) {
        ArriveExpectBytes(plan.KFull(k.idx), P::kBytesK);
        for (int slice = 0; slice < P::kSlices; ++slice) {
          LoadBox2(plan.K(k.idx) + slice * P::kSliceBytesK, &maps.k, plan.KFull(k.idx),
                   slice * kColumns, item.first_row + tile * kTileRows - G::kOffset);
        }
      }
      k.template Advance<P::kStages>();
    }
  }
  Wait(plan.QEmpty(), q_parity ^ 1);
  if (leader) {
    plan.work().num_tiles = 0;
    Arrive(plan.QFull());
  }
}

// ---- Consumers ----------------------------------------------------------------------------------

// One arrival of a warp.
__device__ __forceinline__ void ArriveWarp(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(barrier);
}

template <typename G>
__device__ __forceinline__ Token GetToken(const Params& p, const Work& work, int buffer) {
  const int lane = threadIdx.x % 32;
  const int idx = threadIdx.x / 32 * kWarpTokens + lane / 16;  // in the item
  Token token;
#pragma unroll
  for (int i = 0; i < kParts * 2; ++i) {
    token.lse_log2[i / 2][i % 2] = work.lse_log2[idx * kGroup + lane / 4 % 4 * 4 + i];
  }
  token.num_visible = p.items.NumRows(work.first_position + idx + 1) + G::kOffset;
  token.min_visible = p.items.NumRows(work.first_position + 1) + G::kOffset;
  token.importance =
      p.importance + ((static_cast<int64_t>(blockIdx.x) * kBuffers + buffer) * kItemTokens + idx) *
                         p.importance_stride;
  token.unfinished = 0;
  return token;
}

template <typename T, int kDk, typename G>
__device__ void Consume(const Params& p, const Plan<kDk>& plan) {
  using P = Plan<kDk>;
  const int consumer = threadIdx.x / 128;
  const int first_row = consumer * kParts * kPartRows;             // of Q
  if (consumer == 1) ArriveNamed(kBarrierTurn, kConsumers * 128);  // the first turn is consumer 0's
  uint32_t q_parity = 0;
  RingPosition k, buffer;
  while (true) {
    Wait(plan.QFull(), q_parity);
    const int num_tiles = plan.work().num_tiles;
    if (num_tiles == 0) return;
    Token token = GetToken<G>(p, plan.work(), buffer.idx);
    Queries<T, kDk, kQueryRows> q0, q1;
    q0.Load(plan.Q(), first_row);
    q1.Load(plan.Q(), first_row + kPartRows);
    Wait(plan.Empty(buffer.idx), buffer.parity ^ 1);

    float s0[kTileRows / 2], s1[kTileRows / 2];
    for (int tile = 0; tile < num_tiles; ++tile) {
      Wait(plan.KFull(k.idx), k.parity);
      SyncNamed(kBarrierTurn + consumer, kConsumers * 128);
      PinRegisters(s0);
      PinRegisters(s1);
      FenceWgmma();
      q0.IssueScores(s0, plan.K(k.idx));
      q1.IssueScores(s1, plan.K(k.idx));
      float x[kGroups8], y[kGroups8];
      WaitWgmma<1>();
      PinRegisters(s0);
      AddProbabilities<G, false>(s0, token, token.lse_log2[0], tile, p.scale_log2, x, y);
      // A branch, true at once, which ptxas does not move the next wait across: without it the
      // exponentials would come after the wait and overlap with nothing.
      PinRegisters(x);
      PinRegisters(y);
      Wait(plan.KFull(k.idx), k.parity);
      WaitWgmma<0>();
      ArriveNamed(kBarrierTurn + 1 - consumer, kConsumers * 128);
      PinRegisters(s1);
      ArriveWarp(plan.KEmpty(k.idx));
      k.template Advance<P::kStages>();
      // The consumer is done with Q if its products have read it, from registers or shared memory.
      if (tile == (q0.kLoaded ? 0 : num_tiles - 1)) ArriveWarp(plan.QEmpty());
      AddProbabilities<G, true>(s1, token, token.lse_log2[1], tile, p.scale_log2, x, y);
      float* out = token.importance + tile * G::kTileBlocks;
      if constexpr (G::kPageRows == 1) {
        StoreRows<G>(x, y, out);
      } else {
        StoreBlocks<G>(x, y, token, tile, out);
      }
    }
    ArriveWarp(plan.Full(buffer.idx));
    buffer.Advance<kBuffers>();
    q_parity ^= 1;
  }
}

// ---- Ranking ------------------------------------------------------------------------------------

template <int kDk, typename G>
__device__ void Rank(const Params& p, const Plan<kDk>& plan, int warp, RankKey* list) {
  RingPosition buffer;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const bool has_importances = G::NumTiles(p.rule, item) > 0;
    if (has_importances) Wait(plan.Full(buffer.idx), buffer.parity);
    const float* importance =
        p.importance + (static_cast<int64_t>(blockIdx.x) * kBuffers + buffer.idx) * kItemTokens *
                           p.importance_stride;
    for (int token = warp; token < item.num_tokens; token += kRankingWarps) {
      int32_t* out = p.blocks + (static_cast<int64_t>(item.first_token + token) *
                                     p.items.num_kv_heads.divisor() +
                                 item.kv_head) *
                                    p.rule.num_selected;
      WriteChoice(p.rule, item.first_position + token, importance + token * p.importance_stride,
                  list, out);
    }
    if (has_importances) {
      ArriveWarp(plan.Empty(buffer.idx));
      buffer.Advance<kBuffers>();
    }
  }
}

template <typename T, int kDk, typename G>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillSelectKernel(const __grid_constant__ Maps maps, const __grid_constant__ Params p) {
  extern __shared__ char dynamic_shared[];
  const Plan<kDk> plan(dynamic_shared);
  if (threadIdx.x == 0) plan.Init();
  __syncthreads();
  if (threadIdx.x >= kConsumers * 128) {
    ShrinkRegisters<kOtherRegisters>();
    const int warp = threadIdx.x / 32 - kConsumerWarps;
    if (warp == 0) {
      Produce<kDk, G>(maps, p, plan);
    } else {
      Rank<kDk, G>(p, plan, warp - 1, plan.List(warp - 1));
    }
  } else {
    GrowRegisters<kConsumerRegisters>();
    Consume<T, kDk, G>(p, plan);
  }
}

// ---- Launch -------------------------------------------------------------------------------------

int NumSms() {
  int device = 0, num_sms = 0;
  NSA_CHECK(cudaGetDevice(&device) == cudaSuccess &&
            cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device) ==
                cudaSuccess);
  return num_sms;
}

// Room for the blocks of whole tiles, of which the last may begin at the last page.
int64_t ImportanceStride(int64_t max_pages) {
  return (max_pages + 1 + kTileRows - 1) / kTileRows * kTileRows + kTileRows;
}

template <typename T, int kDk, typename G>
void LaunchInstance(const Maps& maps, const Params& params, int num_sms, cudaStream_t stream) {
  constexpr int kBytes = Plan<kDk>::kBytes;
  const auto kernel = PrefillSelectKernel<T, kDk, G>;
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) ==
            cudaSuccess);
  kernel<<<num_sms, kThreads, kBytes, stream>>>(maps, params);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << "prefill of selection";
}

template <typename T, int kDk>
void LaunchGeometry(const SelectArgs& args, const Maps& maps, const Params& params, int num_sms,
                    cudaStream_t stream) {
  if (args.shape.rows_per_page() == 1) {
    LaunchInstance<T, kDk, Geometry<1, 1>>(maps, params, num_sms, stream);
  } else if (args.shape.row_offset() == 1) {
    LaunchInstance<T, kDk, Geometry<4, 2>>(maps, params, num_sms, stream);
  } else {
    LaunchInstance<T, kDk, Geometry<4, 1>>(maps, params, num_sms, stream);
  }
}

template <typename T>
void LaunchFor(const SelectArgs& args, const Maps& maps, const Params& params, int num_sms,
               cudaStream_t stream) {
  const int64_t d_k = args.rows.d_k();
  if (d_k == 64) LaunchGeometry<T, 64>(args, maps, params, num_sms, stream);
  if (d_k == 128) LaunchGeometry<T, 128>(args, maps, params, num_sms, stream);
  if (d_k == 192) LaunchGeometry<T, 192>(args, maps, params, num_sms, stream);
}

Maps MakeMaps(const SelectArgs& args, const PrefillRows& rows) {
  const bool bf16 = args.q.dtype() == DType::kBF16;
  const int64_t d_k = args.rows.d_k(), num_heads = args.q.dim(1);
  constexpr int64_t kElementBytes = 2;
  return {
      .q = MakeTensorMap({.data = args.q.raw(),
                          .bf16 = bf16,
                          .dims = {{d_k, 0, kColumns},
                                   {4, 4 * d_k * kElementBytes, 4},
                                   {args.q.dim(0), num_heads * d_k * kElementBytes, kWarpTokens},
                                   {num_heads, d_k * kElementBytes, 2}}}),
      .k = MakeTensorMap(
          {.data = rows.k,
           .bf16 = bf16,
           .dims = {{d_k, 0, kColumns}, {rows.num_rows_in_all, d_k * kElementBytes, kTileRows}}})};
}

}  // namespace

bool CanPrefillSelect(const SelectArgs& args) {
  const DType dtype = args.q.dtype();
  const int64_t d_k = args.rows.d_k();
  const int64_t page_rows = args.shape.rows_per_page(), offset = args.shape.row_offset();
  return (dtype == DType::kBF16 || dtype == DType::kF16) && args.rows.k.dtype() == dtype &&
         (d_k == 64 || d_k == 128 || d_k == 192) &&
         args.q.dim(1) == kGroup * args.rows.num_kv_heads() &&
         ((page_rows == 4 && offset <= 1) || page_rows == 1) &&
         args.shape.num_selected <= kMaxPrefillSelected;
}

int64_t PrefillSelectBytes(const SparseAttentionExtent& extent) {
  return NumSms() * kBuffers * kItemTokens * ImportanceStride(extent.max_pages) *
         static_cast<int64_t>(sizeof(float));
}

void LaunchPrefillSelect(const SelectArgs& args, const PrefillRows& rows, void* scratch,
                         int num_sms, cudaStream_t stream) {
  NSA_CHECK(CanPrefillSelect(args)) << args.q.ToString() << " " << args.rows.k.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  const NsaShape& shape = args.shape;
  const Params params{
      .items = {.tiles = static_cast<const int4*>(args.tokens.tiles.raw()),
                .num_tiles = static_cast<int32_t>(args.tokens.tiles.dim(0)),
                .num_kv_heads = FastDivide(static_cast<int32_t>(args.rows.num_kv_heads())),
                .item_tokens = kItemTokens,
                .items_per_tile = FastDivide(static_cast<int32_t>(kTileTokens / kItemTokens)),
                .span_tokens = static_cast<int32_t>(shape.span_tokens),
                .span_stride = FastDivide(static_cast<int32_t>(shape.span_stride)),
                .rows_stride = static_cast<int32_t>(rows.rows_stride)},
      .rule = {.block_tokens = static_cast<int32_t>(shape.block_tokens),
               .num_selected = static_cast<int32_t>(shape.num_selected),
               .num_initial = static_cast<int32_t>(shape.num_initial),
               .num_local = static_cast<int32_t>(shape.num_local)},
      .lse = args.lse.data<float>(),
      .blocks = args.blocks.data<int32_t>(),
      .importance = static_cast<float*>(scratch),
      .importance_stride = ImportanceStride(args.rows.table.dim(1)),
      .num_heads = static_cast<int32_t>(args.q.dim(1)),
      .scale_log2 = args.softmax_scale * kLog2E};
  const Maps maps = MakeMaps(args, rows);
  if (args.q.dtype() == DType::kBF16) {
    LaunchFor<__nv_bfloat16>(args, maps, params, num_sms, stream);
  } else {
    LaunchFor<__half>(args, maps, params, num_sms, stream);
  }
}

}  // namespace nsa::cuda
