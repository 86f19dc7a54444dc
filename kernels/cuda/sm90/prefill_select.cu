// A block serves one item at a time: 16 tokens of one KV head with their 16 query heads each. Two
// consumer warpgroups compute scores Q K^T against tiles of 128 compressed rows, 4 tokens at a
// time, so that a warp's 16 accumulator rows are the heads of one token; turned into probabilities
// with the lse of CompressedAttention they are summed over heads, then into block importances,
// which go to a small buffer of this thread block in L2. Three more warps rank the blocks of an
// item while the consumers work on the next one, and a producer thread keeps the tiles coming.
// Scores never leave registers.
//
// Each consumer has two accumulators, for its first and its second 4 tokens: the tensor cores fill
// one while the exponentials of the other are taken.
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
#include "kernels/cuda/sm90/prefill_select.h"
#include "kernels/cuda/sm90/prefill_select_best.cuh"

namespace nsa::cuda {
namespace {

constexpr int kTileRows = kPrefillTileRows;
constexpr int kGroup = 16;  // query heads of a token: the rows of a warp's accumulators
constexpr int kConsumers = 2;
constexpr int kParts = 2;       // accumulators of a consumer
constexpr int kPartTokens = 4;  // a token per warp
constexpr int kItemTokens = kConsumers * kParts * kPartTokens;
constexpr int kQueryRows = kItemTokens * kGroup;
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kConsumerWarps = kConsumers * 4;
constexpr int kRankingWarps = 3;
constexpr int kConsumerRegisters = 224;
constexpr int kOtherRegisters = 56;
constexpr int kColumns = 64;    // of a swizzled slice: rows of 128 bytes
constexpr int kRowBytes = 128;  // of a slice
constexpr int kBuffers = 2;     // of importances, per thread block
constexpr float kLog2E = 1.4426950408889634f;

struct Maps {
  CUtensorMap q;  // [T, H, d_k], box [16, 16, 64]
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

// Dynamic shared memory. Q and K are slices of 64 columns.
template <int kDk>
struct Plan {
  // With more columns Q does not fit into registers beside the accumulators.
  static constexpr bool kQueriesInRegisters = kDk <= 128;
  static constexpr int kStages = kDk > 128 ? 2 : 3;
  static constexpr int kSlices = kDk / kColumns;
  static constexpr int kSliceBytesQ = kQueryRows * kRowBytes;
  static constexpr int kSliceBytesK = kTileRows * kRowBytes;
  static constexpr int kBytesQ = kSlices * kSliceBytesQ;
  static constexpr int kBytesK = kSlices * kSliceBytesK;
  static constexpr int kLists = kBytesQ + kStages * kBytesK;
  static constexpr int kListBytes = kMaxCandidates * sizeof(RankKey);
  static constexpr int kBarriers = kLists + kRankingWarps * kListBytes;
  static constexpr int kNumBarriers = 2 + 2 * kStages + 2 * kBuffers;
  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kBarriers + kNumBarriers * 8 + kAlignment;

  uint32_t base;
  __device__ explicit Plan(uint32_t dynamic_shared)
      : base((dynamic_shared + kAlignment - 1) / kAlignment * kAlignment) {}
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

// How blocks are made of rows: a page, which is a block, holds kRows paged rows, and a row's span
// covers kSpan strides. Paged row u of the model is row u - (kSpan - 1) of PrefillRows.
template <int kRows, int kSpan>
struct Geometry {
  static_assert((kRows == 4 && kSpan <= 2) || (kRows == 1 && kSpan == 1));
  static constexpr int kPageRows = kRows;
  static constexpr int kOffset = kSpan - 1;
  static constexpr int kTileBlocks = kTileRows / kRows;

  // Tiles of paged rows that an item's importances need; 0 if none of its tokens has to choose.
  static __device__ int NumTiles(const SelectRule& rule, const Item& item) {
    const int own = item.last_position() / rule.block_tokens;
    if (own < rule.num_selected || rule.NumFree() == 0) return 0;
    const int num_rows = kRows * (own - rule.num_local + 1) + kOffset;
    return (num_rows + kTileRows - 1) / kTileRows;
  }
};

// ---- Producer: one thread -----------------------------------------------------------------------

template <int kDk, typename G>
__device__ void Produce(const Maps& maps, const Params& p, const Plan<kDk>& plan) {
  using P = Plan<kDk>;
  uint32_t q_parity = 0;
  RingPosition k;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = G::NumTiles(p.rule, item);
    if (num_tiles == 0) continue;
    Wait(plan.QEmpty(), q_parity ^ 1);
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
                 slice * kColumns, item.first_row + tile * kTileRows - G::kOffset);
      }
      k.template Advance<P::kStages>();
    }
  }
}

// ---- Consumers ----------------------------------------------------------------------------------

// The 64 query rows of one part of a consumer, in registers or where they lie in shared memory.
template <typename T, int kDk, bool kInRegisters = Plan<kDk>::kQueriesInRegisters>
struct Queries {
  uint32_t a[kDk / 16][4];

  __device__ __forceinline__ void Load(uint32_t q, int first_row) {
    const int lane = threadIdx.x % 32;
    const int row = first_row + threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      const int chunk = step % 4 * 2 + lane / 16;
      LoadMatrix4(a[step], q + step / 4 * Plan<kDk>::kSliceBytesQ + row * kRowBytes +
                               (chunk ^ (row % 8)) * 16);
    }
  }
  // s = Q K^T, issued only.
  __device__ __forceinline__ void IssueScores(float (&s)[kTileRows / 2], uint32_t k) const {
    const uint64_t b = DescribeKMajor(k);
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      const uint64_t offset = (step / 4 * Plan<kDk>::kSliceBytesK >> 4) + step % 4 * 2;
      Wgmma<T, kTileRows, Layout::kKMajor>::Registers(s, a[step], b + offset, step > 0);
    }
    CommitWgmma();
  }
};
template <typename T, int kDk>
struct Queries<T, kDk, false> {
  uint32_t address;

  __device__ __forceinline__ void Load(uint32_t q, int first_row) {
    address = q + first_row * kRowBytes;
  }
  __device__ __forceinline__ void IssueScores(float (&s)[kTileRows / 2], uint32_t k) const {
    const uint64_t a = DescribeKMajor(address), b = DescribeKMajor(k);
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      const uint64_t inner = step % 4 * 2;
      Wgmma<T, kTileRows, Layout::kKMajor>::Shared(
          s, a + (step / 4 * Plan<kDk>::kSliceBytesQ >> 4) + inner,
          b + (step / 4 * Plan<kDk>::kSliceBytesK >> 4) + inner, step > 0);
    }
    CommitWgmma();
  }
};

// Sums x over the 8 lanes that share lane % 4 and scatters the sums: lane l gets those of elements
// 2 * (l / 4) and the next. A fixed order of additions.
template <int kBit, int kCount>
__device__ __forceinline__ void SumStep(float (&x)[kTileRows / 8]) {
  const bool upper = threadIdx.x & kBit;
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const float sent = upper ? x[i] : x[i + kCount / 2];
    const float kept = upper ? x[i + kCount / 2] : x[i];
    x[i] = kept + __shfl_xor_sync(kAllLanes, sent, kBit);
  }
}
__device__ __forceinline__ void SumHeads(float (&x)[kTileRows / 8]) {
  SumStep<16, 16>(x);
  SumStep<8, 8>(x);
  SumStep<4, 4>(x);
}

// The token that a warp serves in one part, and what it carries from tile to tile.
struct Token {
  float lse_log2[2];  // of heads lane / 4 and 8 further on
  int num_visible;    // paged rows below this are visible
  float* importance;
  float unfinished;  // sum so far of the last block of the previous tile, in lane 30
};

// Scores become probabilities, summed over this thread's two heads: x of the first, y of the second
// of its two columns in each group of 8.
template <typename G>
__device__ __forceinline__ void TakeProbabilities(float (&s)[kTileRows / 2], const Token& token,
                                                  int tile, float scale_log2,
                                                  float (&x)[kTileRows / 8],
                                                  float (&y)[kTileRows / 8]) {
  if ((tile + 1) * kTileRows > token.num_visible || (G::kOffset > 0 && tile == 0)) {
    const int column = tile * kTileRows + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < kTileRows / 2; ++i) {
      const int row = column + i / 4 * 8 + i % 2;
      if (row < G::kOffset || row >= token.num_visible) s[i] = -INFINITY;
    }
  }
#pragma unroll
  for (int i = 0; i < kTileRows / 2; ++i) {
    s[i] = Exp2(fmaf(s[i], scale_log2, -token.lse_log2[i / 2 % 2]));
  }
#pragma unroll
  for (int i = 0; i < kTileRows / 8; ++i) {
    x[i] = s[4 * i] + s[4 * i + 2];
    y[i] = s[4 * i + 1] + s[4 * i + 3];
  }
}

// Adds one tile of scores to a token's importances.
template <typename G>
__device__ __forceinline__ void AddTile(float (&s)[kTileRows / 2], Token& token, int tile,
                                        float scale_log2) {
  const int lane = threadIdx.x % 32, quad = lane / 4, pair = lane % 4 / 2;
  float x[kTileRows / 8], y[kTileRows / 8];
  TakeProbabilities<G>(s, token, tile, scale_log2, x, y);
  float* out = token.importance + tile * G::kTileBlocks;
  if constexpr (G::kPageRows == 1) {
    SumHeads(x);
    SumHeads(y);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      reinterpret_cast<float2*>(out)[(2 * quad + i) * 4 + lane % 4] = {x[i], y[i]};
    }
    return;
  }
  // Half a block per thread: rows 0, 1 or 2, 3 of block `pair` of the two in 8 columns.
  float half[kTileRows / 8];
  constexpr bool kOverlap = G::kOffset > 0;  // weights 1 2 2 2 1, the last for the next block's row
  const float weight = kOverlap && lane % 2 == 0 ? 0.5f : 1.0f;
#pragma unroll
  for (int i = 0; i < kTileRows / 8; ++i) {
    half[i] = fmaf(weight, x[i], y[i]);
  }
  SumHeads(half);
  float sum[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) sum[i] = half[i] + __shfl_xor_sync(kAllLanes, half[i], 1);
  if constexpr (kOverlap) {
    SumHeads(x);
    // First rows of the blocks that follow: in the same group of 8 columns, or in the next one.
    const float near = __shfl_sync(kAllLanes, x[0], (lane + 2) % 32);
    const float far = __shfl_xor_sync(kAllLanes, x[1], 2);
    sum[0] = fmaf(2.0f, sum[0], pair == 0 ? near : far);
    if (lane == 30) {
      // `near` came round from lane 0 and completes the last block of the previous tile.
      if (tile > 0) out[-1] = token.unfinished + near;
      token.unfinished = 2.0f * sum[1];
    }
    sum[1] = fmaf(2.0f, sum[1], pair == 0 ? far : near);
  }
  if (lane % 2 == 0) {
    out[4 * quad + pair] = sum[0];
    if (!kOverlap || lane != 30) out[4 * quad + 2 + pair] = sum[1];
  }
}

// One arrival of a warp.
__device__ __forceinline__ void ArriveWarp(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(barrier);
}

template <typename G>
__device__ __forceinline__ Token GetToken(const Params& p, const Item& item, int idx, int buffer) {
  Token token;
  const int valid_idx = min(idx, item.num_tokens - 1);  // spare warps repeat the last token
  const float* lse = p.lse + static_cast<int64_t>(item.first_token + valid_idx) * p.num_heads +
                     item.kv_head * kGroup + threadIdx.x % 32 / 4;
  token.lse_log2[0] = lse[0] * kLog2E;
  token.lse_log2[1] = lse[8] * kLog2E;
  token.num_visible = p.items.NumRows(item.first_position + valid_idx + 1) + G::kOffset;
  token.importance =
      p.importance + ((static_cast<int64_t>(blockIdx.x) * kBuffers + buffer) * kItemTokens + idx) *
                         p.importance_stride;
  token.unfinished = 0;
  return token;
}

template <typename T, int kDk, typename G>
__device__ void Consume(const Params& p, const Plan<kDk>& plan) {
  using P = Plan<kDk>;
  const int consumer = threadIdx.x / 128, warp = threadIdx.x % 128 / 32;
  const int first_token = consumer * kParts * kPartTokens + warp;
  uint32_t q_parity = 0;
  RingPosition k, buffer;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = G::NumTiles(p.rule, item);
    if (num_tiles == 0) continue;
    Token token0 = GetToken<G>(p, item, first_token, buffer.idx);
    Token token1 = GetToken<G>(p, item, first_token + kPartTokens, buffer.idx);
    Queries<T, kDk> q0, q1;
    float s0[kTileRows / 2], s1[kTileRows / 2];
    Wait(plan.QFull(), q_parity);
    q0.Load(plan.Q(), consumer * kParts * 64);
    q1.Load(plan.Q(), consumer * kParts * 64 + 64);
    if (P::kQueriesInRegisters) ArriveWarp(plan.QEmpty());
    Wait(plan.Empty(buffer.idx), buffer.parity ^ 1);

    for (int tile = 0; tile < num_tiles; ++tile) {
      Wait(plan.KFull(k.idx), k.parity);
      PinRegisters(s0);
      PinRegisters(s1);
      FenceWgmma();
      q0.IssueScores(s0, plan.K(k.idx));
      q1.IssueScores(s1, plan.K(k.idx));
      WaitWgmma<1>();
      PinRegisters(s0);
      AddTile<G>(s0, token0, tile, p.scale_log2);
      WaitWgmma<0>();
      PinRegisters(s1);
      ArriveWarp(plan.KEmpty(k.idx));
      k.template Advance<P::kStages>();
      AddTile<G>(s1, token1, tile, p.scale_log2);
    }
    if (!P::kQueriesInRegisters) ArriveWarp(plan.QEmpty());

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
      int32_t* out =
          p.blocks +
          (static_cast<int64_t>(item.first_token + token) * p.items.num_kv_heads + item.kv_head) *
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
  const uint32_t start = SharedAddress(dynamic_shared);
  const Plan<kDk> plan(start);
  if (threadIdx.x == 0) plan.Init();
  __syncthreads();
  if (threadIdx.x >= kConsumers * 128) {
    ShrinkRegisters<kOtherRegisters>();
    const int warp = threadIdx.x / 32 - kConsumerWarps;
    if (warp == 0) {
      if (threadIdx.x % 32 == 0) Produce<kDk, G>(maps, p, plan);
    } else {
      auto* lists =
          reinterpret_cast<RankKey*>(dynamic_shared + (plan.base - start) + Plan<kDk>::kLists);
      Rank<kDk, G>(p, plan, warp - 1, lists + (warp - 1) * kMaxCandidates);
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
                                   {num_heads, d_k * kElementBytes, kGroup},
                                   {args.q.dim(0), num_heads * d_k * kElementBytes, kItemTokens}}}),
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
                         cudaStream_t stream) {
  NSA_CHECK(CanPrefillSelect(args)) << args.q.ToString() << " " << args.rows.k.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  const NsaShape& shape = args.shape;
  const Params params{.items = {.tiles = static_cast<const int4*>(args.tokens.tiles.raw()),
                                .num_tiles = static_cast<int32_t>(args.tokens.tiles.dim(0)),
                                .num_kv_heads = static_cast<int32_t>(args.rows.num_kv_heads()),
                                .item_tokens = kItemTokens,
                                .items_per_tile = static_cast<int32_t>(kTileTokens / kItemTokens),
                                .span_tokens = static_cast<int32_t>(shape.span_tokens),
                                .span_stride = static_cast<int32_t>(shape.span_stride),
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
  const int num_sms = NumSms();
  if (args.q.dtype() == DType::kBF16) {
    LaunchFor<__nv_bfloat16>(args, maps, params, num_sms, stream);
  } else {
    LaunchFor<__half>(args, maps, params, num_sms, stream);
  }
}

}  // namespace nsa::cuda
