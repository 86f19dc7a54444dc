// The second pass over the compressed rows (prefill_lse.cu is the first): attention and block
// importances. As the log-sum-exps are known, a score becomes a final probability at once, so that
// rows can be taken in small tiles and nothing is rescaled or divided.
//
// A block serves one item at a time: the 16 query heads of one KV head of up to 8 tokens are 128
// rows of Q, 64 for each of two consumer warpgroups; a warp has one token. A producer thread keeps
// rings of 64-row tiles of K and V filled. They are walked from the last to the first, so that the
// tile that needs a mask comes first.
//
// While a consumer turns the scores of one tile into probabilities, the tensor cores multiply what
// it has issued before: the outputs of the tile before and the scores of the tile after. The tiles
// of all items form one stream, so this holds across items too.
//
// Threads: 2 x 128 consumers, 128 producers of which one issues copies and one warp writes the
// outputs of tokens that see no row. Shared memory: Plan. Bound by the tensor cores: 4 * d flop per
// query head and visible row; exponentials take half of that time on the special function units.
// Reads of K and V come from L2: 32 KiB per 4.2 MFLOP.

#include "base/check.h"
#include "kernels/cuda/device/transpose_quad.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_compressed_items.cuh"
#include "kernels/cuda/sm90/prefill_compressed_queries.cuh"
#include "kernels/cuda/sm90/prefill_importance.cuh"

namespace nsa::cuda {
namespace {

constexpr int kTileRows = 64;
constexpr int kScores = kTileRows / 2;  // of a thread
constexpr int kConsumers = 2;           // warpgroups
constexpr int kConsumerTokens = 4;
constexpr int kConsumerRows = kConsumerTokens * kGroup;
constexpr int kItemTokens = kConsumers * kConsumerTokens;
constexpr int kQueryRows = kConsumers * kConsumerRows;
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kConsumerWarps = kConsumers * 4;
constexpr int kConsumerRegisters = 240;
constexpr int kProducerRegisters = 24;
constexpr float kLog2E = 1.4426950408889634f;

struct Maps {
  CUtensorMap q;  // [T, H, d_k], box [8, 16, 64]
  CUtensorMap k;  // [all rows, d_k], box [64, 64]
  CUtensorMap v;
};

struct Params {
  ItemSpace items;
  const float* lse;   // [T, H]
  void* out;          // [T, H, d_v]
  float* importance;  // [num_tiles * kTileTokens, num_kv_heads, importance_stride]
  int32_t importance_stride;
  int32_t block_tokens, num_selected;
  int32_t num_heads;
  float scale_log2;  // softmax scale * log2(e)
};

// What the producer tells the consumers with each Q.
struct Work {
  int32_t first_token, num_tokens, first_position, kv_head, place;
  int32_t num_tiles;  // 0: no more work
};

// Dynamic shared memory. Q, K and V are slices of 64 columns, of 128 bytes a row.
template <int kDk, int kDv>
struct Plan {
  static constexpr int kStages = kDk > 128 ? 4 : 5;
  static constexpr int kSliceBytesQ = kQueryRows * kRowBytes;
  static constexpr int kSliceBytes = kTileRows * kRowBytes;  // of K and V
  static constexpr int kSlicesK = kDk / kColumns, kSlicesV = kDv / kColumns;
  static constexpr int kBytesQ = kSlicesK * kSliceBytesQ;
  static constexpr int kBytesK = kSlicesK * kSliceBytes;
  static constexpr int kBytesV = kSlicesV * kSliceBytes;
  static constexpr int kK = kBytesQ;
  static constexpr int kV = kK + kStages * kBytesK;
  static constexpr int kBarriers = kV + kStages * kBytesV;
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
  __device__ uint32_t K(int i) const { return base + kK + i * kBytesK; }
  __device__ uint32_t V(int i) const { return base + kV + i * kBytesV; }
  __device__ uint32_t Barrier(int i) const { return base + kBarriers + i * 8; }
  __device__ uint32_t QFull() const { return Barrier(0); }
  __device__ uint32_t QEmpty() const { return Barrier(1); }
  __device__ uint32_t Full(int i) const { return Barrier(2 + i); }  // K and V of a tile
  __device__ uint32_t Empty(int i) const { return Barrier(2 + kStages + i); }

  __device__ void Init() const {
    InitBarrier(QFull(), 1);
    InitBarrier(QEmpty(), kConsumerWarps);
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(Full(i), 1);
      InitBarrier(Empty(i), kConsumerWarps);
    }
    FenceBarrierInit();
  }
};

// ---- Producer: one thread -----------------------------------------------------------------------

template <int kDk, int kDv>
__device__ void Produce(const Maps& maps, const Params& p, const Plan<kDk, kDv>& plan) {
  using P = Plan<kDk, kDv>;
  uint32_t q_parity = 0;
  RingPosition ring;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = p.items.NumTiles(item, kTileRows);
    if (num_tiles == 0) continue;
    Wait(plan.QEmpty(), q_parity ^ 1);
    *plan.work = {item.first_token, item.num_tokens, item.first_position,
                  item.kv_head,     item.place,      num_tiles};
    ArriveExpectBytes(plan.QFull(), P::kBytesQ);
    for (int slice = 0; slice < P::kSlicesK; ++slice) {
      LoadBox3(plan.Q() + slice * P::kSliceBytesQ, &maps.q, plan.QFull(), slice * kColumns,
               item.kv_head * kGroup, item.first_token);
    }
    q_parity ^= 1;
    for (int tile = num_tiles - 1; tile >= 0; --tile) {
      const int row = item.first_row + tile * kTileRows;
      const uint32_t full = plan.Full(ring.idx);
      Wait(plan.Empty(ring.idx), ring.parity ^ 1);
      ArriveExpectBytes(full, P::kBytesK + P::kBytesV);
      for (int slice = 0; slice < P::kSlicesK; ++slice) {
        LoadBox2(plan.K(ring.idx) + slice * P::kSliceBytes, &maps.k, full, slice * kColumns, row);
      }
      for (int slice = 0; slice < P::kSlicesV; ++slice) {
        LoadBox2(plan.V(ring.idx) + slice * P::kSliceBytes, &maps.v, full, slice * kColumns, row);
      }
      ring.template Advance<P::kStages>();
    }
  }
  Wait(plan.QEmpty(), q_parity ^ 1);
  plan.work->num_tiles = 0;
  Arrive(plan.QFull());
}

// Items that see no rows at all: output 0. One warp.
template <int kDv>
__device__ void StoreEmptyItems(const Params& p) {
  constexpr int kChunks = kDv / 8;
  const int lane = threadIdx.x % 32;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0 || p.items.NumTiles(item, kTileRows) > 0) continue;
    for (int row = 0; row < item.num_tokens * kGroup; ++row) {
      const int64_t to = static_cast<int64_t>(item.first_token + row / kGroup) * p.num_heads +
                         item.kv_head * kGroup + row % kGroup;
      if (lane < kChunks) static_cast<uint4*>(p.out)[to * kChunks + lane] = {0, 0, 0, 0};
    }
  }
}

// ---- Consumers ----------------------------------------------------------------------------------

// This warp's token of an item.
struct WarpToken {
  int32_t head = -1;        // packed token * num_heads + this thread's first head; -1: none
  int32_t importance = -1;  // index of its first block's; -1: all blocks are chosen anyway
  int32_t end_row = 0;

  WarpToken() = default;
  __device__ __forceinline__ WarpToken(const Params& p, const Work& work) {
    const int token = threadIdx.x / 32;
    const int position = work.first_position + token;
    end_row = p.items.EndRow(position + 1);
    if (token >= work.num_tokens) return;
    head = (work.first_token + token) * p.num_heads + work.kv_head * kGroup + threadIdx.x % 32 / 4;
    if (position / p.block_tokens >= p.num_selected) {
      importance = ((work.place + token) * p.items.num_kv_heads.divisor() + work.kv_head) *
                   p.importance_stride;
    }
  }
};

// Hides the rows of a tile that the token does not see.
__device__ __forceinline__ void Mask(float (&s)[kScores], int tile, int first_row, int end_row) {
  const int column = tile * kTileRows + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    const int row = column + i / 4 * 8 + i % 2;
    if (row < first_row || row >= end_row) s[i] = -INFINITY;
  }
}

template <typename T>
__device__ __forceinline__ void Pack(const float (&s)[kScores],
                                     uint32_t (&packed)[kTileRows / 16][4]) {
#pragma unroll
  for (int i = 0; i < kScores / 2; ++i) {
    packed[i / 4][i % 4] = PackPair<T>(s[2 * i], s[2 * i + 1]);
  }
}

// o (+)= P V of this warpgroup, issued only; `meanwhile` as for IssueScores.
template <typename T, int kDv, typename F>
__device__ __forceinline__ void IssueOutputs(float (&o)[kDv / 2],
                                             const uint32_t (&p)[kTileRows / 16][4], uint32_t v,
                                             bool accumulate, F&& meanwhile) {
  const uint64_t b = DescribeMnMajor(v, kTileRows * kRowBytes);
#pragma unroll
  for (int step = 0; step < kTileRows / 16; ++step) {
    Wgmma<T, kDv, Layout::kMnMajor>::Registers(o, p[step], b + 128 * step, accumulate || step > 0);
    meanwhile(step, kTileRows / 16);
  }
  CommitWgmma();
}

// Writes a token's outputs, 16 bytes a lane.
template <typename T, int kDv>
__device__ __forceinline__ void StoreOutputs(const Params& p, int32_t head,
                                             const float (&o)[kDv / 2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    T* out = static_cast<T*>(p.out) + (int64_t{head} + 8 * half) * kDv + threadIdx.x % 4 * 8;
#pragma unroll
    for (int i = 0; i < kDv / 8; i += 4) {
      uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = 4 * (i + j) + 2 * half;
        x[j] = PackPair<T>(o[at], o[at + 1]);
      }
      TransposeQuad(x);
      if (head >= 0) *reinterpret_cast<uint4*>(out + i * 8) = {x[0], x[1], x[2], x[3]};
    }
  }
}

// One consumer warpgroup. Scores and probabilities of two neighbouring tiles of the stream are in
// turn in one of two sets of registers.
template <typename T, int kDk, int kDv, typename G>
class Consumer {
  using P = Plan<kDk, kDv>;

 public:
  __device__ __forceinline__ Consumer(const Params& p, const P& plan) : p_(p), plan_(plan) {}

  __device__ __forceinline__ void Run() {
    if (!TakeItem()) return;
    StartItem();
    Wait(plan_.Full(0), 0);
    FenceWgmma();
    queries_.IssueScores(s_[0], plan_.K(0));
    WaitWgmma<0>();
    PinRegisters(s_[0]);
    ReleaseQueries();
    next_.template Advance<P::kStages>();
    while (true) {
      if (!Step<0, false>()) break;
      StepInside<1>();
      if (!Step<1, false>()) break;
      StepInside<0>();
    }
  }

 private:
  // Waits for the next item and loads its queries and log-sum-exps; false if there is none.
  __device__ __forceinline__ bool TakeItem() {
    Wait(plan_.QFull(), q_parity_);
    if (plan_.work->num_tiles == 0) return false;
    tile_ = plan_.work->num_tiles - 1;
    last_inside_ = tile_ - 2;
    const WarpToken token(p_, *plan_.work);
    if (token.head >= 0) {
      lse_[0] = p_.lse[token.head];
      lse_[1] = p_.lse[token.head + 8];
    }
    queries_.Load(plan_.Q(), threadIdx.x / 128 * kConsumerRows);
    return true;
  }
  __device__ __forceinline__ void StartItem() {
    token_ = WarpToken(p_, *plan_.work);
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // a head that sees nothing has scores -inf alone
      shift_[half] = lse_[half] == -INFINITY ? 0 : lse_[half] * kLog2E;
    }
  }
  // After the first product that has read them.
  __device__ __forceinline__ void ReleaseQueries() {
    ArriveWarp(plan_.QEmpty());
    q_parity_ ^= 1;
  }

  // Steps from s_[kFirst] on while nothing but whole tiles of one item is concerned.
  template <int kFirst>
  __device__ __forceinline__ void StepInside() {
    while (tile_ >= 2 && tile_ <= last_inside_) {
      Step<kFirst, true>();
      Step<1 - kFirst, true>();
    }
  }

  // Weighs the tile whose scores are s_[kNow], beside the outputs of the tile before and the scores
  // of the tile after. False after the last one. kInside: all of the tile is visible, and it is
  // neither of the first two of its item nor the last one.
  template <int kNow, bool kInside>
  __device__ __forceinline__ bool Step() {
    constexpr int kOther = 1 - kNow;
    const int tile = tile_--;
    const bool is_last = !kInside && tile == 0;  // of its item
    const bool has_next = !is_last || TakeItem();
    if (has_next && !next_is_full_) Wait(plan_.Full(next_.idx), next_.parity);
    if constexpr (!kInside) Mask(s_[kNow], tile, p_.items.first_row, token_.end_row);
    PinRegisters(s_[kOther]);
    PinRegisters(o_);
    FenceWgmma();
    // The first tile of all has no outputs before it, the last one no scores after it. They are
    // computed from whatever is there, and dropped.
    float weights[kScores];
    IssueOutputs<T, kDv>(
        o_, packed_[kOther], plan_.V(before_), kInside || accumulate_,
        [&](int step, int num_steps) { Weigh(s_[kNow], 0, step, num_steps, weights); });
    queries_.IssueScores(s_[kOther], plan_.K(next_.idx), [&](int step, int num_steps) {
      Weigh(s_[kNow], kScores / 2, step, num_steps, weights);
    });
    next_.template Advance<P::kStages>();
    next_is_full_ = TestWait(plan_.Full(next_.idx), next_.parity);

    importances_.Store(p_.importance, carry_);
    Pack<T>(weights, packed_[kNow]);
    importances_.Take(weights, token_.importance < 0
                                   ? -1
                                   : token_.importance + tile * TileImportances<G>::kBlocks);
    PinRegisters(weights);
    // A branch, rarely taken, that ptxas does not move the wait across: without it the exponentials
    // would come after the wait and overlap with nothing.
    if (!next_is_full_ && tile_ > 0) [[unlikely]] {
      Wait(plan_.Full(next_.idx), next_.parity);
      next_is_full_ = true;
    }
    WaitWgmma<0>();
    PinRegisters(s_[kOther]);
    PinRegisters(o_);
    __syncwarp();
    if (threadIdx.x % 32 == 0 && (kInside || has_outputs_)) Arrive(plan_.Empty(before_));
    if (++before_ == P::kStages) before_ = 0;
    if constexpr (kInside) return true;
    has_outputs_ = true;
    if (completes_) {  // the tile before was the last one of another item
      StoreOutputs<T, kDv>(p_, done_head_, o_);
      carry_ = 0;
    }
    accumulate_ = !completes_;
    completes_ = is_last;
    if (is_last) {
      done_head_ = token_.head;
      if (!has_next) return Finish<kNow>();
      StartItem();
      ReleaseQueries();
    }
    return true;
  }

  // Part `part` of `num_parts` of half of the scores, from `first` on, become probabilities.
  __device__ __forceinline__ void Weigh(const float (&s)[kScores], int first, int part,
                                        int num_parts, float (&weights)[kScores]) const {
    const int size = (kScores / 2 + num_parts - 1) / num_parts;
#pragma unroll
    for (int i = first + part * size; i < first + (part + 1) * size; ++i) {
      if (i >= first + kScores / 2) continue;
      weights[i] = Exp2(fmaf(s[i], p_.scale_log2, -shift_[i / 2 % 2]));
    }
  }

  // What is left of the last tile of all.
  template <int kNow>
  __device__ __forceinline__ bool Finish() {
    FenceWgmma();
    IssueOutputs<T, kDv>(o_, packed_[kNow], plan_.V(before_), accumulate_, Nothing());
    importances_.Store(p_.importance, carry_);
    WaitWgmma<0>();
    PinRegisters(o_);
    StoreOutputs<T, kDv>(p_, done_head_, o_);
    return false;
  }

  const Params& p_;
  const P& plan_;
  RingPosition next_;            // of the tile whose scores come next
  int before_ = P::kStages - 1;  // where the values are of the tile whose outputs come next
  uint32_t q_parity_ = 0;
  Queries<T, kDk, kQueryRows, true> queries_;
  WarpToken token_;        // of the tile that is being weighed
  float shift_[2];         // its log-sum-exps, base 2
  float lse_[2] = {0, 0};  // those of the next item
  int tile_ = 0, last_inside_ = 0;
  TileImportances<G> importances_;  // of the tile before
  float carry_ = 0;
  bool next_is_full_ = false;
  bool has_outputs_ = false;  // there was a tile before
  bool completes_ = true;     // and it was the last one of its item
  bool accumulate_ = false;   // else: and not the first one
  int32_t done_head_ = -1;    // of its token
  float s_[2][kScores], o_[kDv / 2];
  uint32_t packed_[2][kTileRows / 16][4] = {};
};

template <typename T, int kDk, int kDv, typename G>
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
    Consumer<T, kDk, kDv, G>(p, plan).Run();
  }
}

// ---- Launch -------------------------------------------------------------------------------------

Maps MakeMaps(const CompressedAttentionArgs& args, const PrefillRows& rows) {
  const bool bf16 = args.q.dtype() == DType::kBF16;
  const int64_t d_k = args.rows.d_k(), d_v = args.rows.d_v(), num_heads = args.q.dim(1);
  constexpr int64_t kElementBytes = 2;
  const auto map_rows = [&](const void* data, int64_t d) {
    return MakeTensorMap(
        {.data = data,
         .bf16 = bf16,
         .dims = {{d, 0, kColumns}, {rows.num_rows_in_all, d * kElementBytes, kTileRows}}});
  };
  return {
      .q = MakeTensorMap({.data = args.q.raw(),
                          .bf16 = bf16,
                          .dims = {{d_k, 0, kColumns},
                                   {num_heads, d_k * kElementBytes, kGroup},
                                   {args.q.dim(0), num_heads * d_k * kElementBytes, kItemTokens}}}),
      .k = map_rows(rows.k, d_k),
      .v = map_rows(rows.v, d_v)};
}

template <typename T, int kDk, int kDv, typename G>
void LaunchInstance(const Maps& maps, const Params& params, int num_sms, cudaStream_t stream) {
  constexpr int kBytes = Plan<kDk, kDv>::kBytes;
  const auto kernel = PrefillCompressedKernel<T, kDk, kDv, G>;
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) ==
            cudaSuccess);
  kernel<<<num_sms, kThreads, kBytes, stream>>>(maps, params);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << "prefill of compressed attention";
}

template <typename T, int kDk, int kDv>
void LaunchGeometry(const NsaShape& shape, const Maps& maps, const Params& params, int num_sms,
                    cudaStream_t stream) {
  if (shape.rows_per_page() == 1) {
    LaunchInstance<T, kDk, kDv, Geometry<1, 1>>(maps, params, num_sms, stream);
  } else if (shape.row_offset() == 1) {
    LaunchInstance<T, kDk, kDv, Geometry<4, 2>>(maps, params, num_sms, stream);
  } else {
    LaunchInstance<T, kDk, kDv, Geometry<4, 1>>(maps, params, num_sms, stream);
  }
}

template <typename T>
void LaunchFor(const CompressedAttentionArgs& args, const Maps& maps, const Params& params,
               int num_sms, cudaStream_t stream) {
  const int64_t d_k = args.rows.d_k();
  if (d_k == 64) LaunchGeometry<T, 64, 64>(args.shape, maps, params, num_sms, stream);
  if (d_k == 128) LaunchGeometry<T, 128, 128>(args.shape, maps, params, num_sms, stream);
  if (d_k == 192) LaunchGeometry<T, 192, 128>(args.shape, maps, params, num_sms, stream);
}

int64_t ImportanceStride(const SparseAttentionExtent& extent) {
  return (extent.max_pages + 127) / 128 * 128;
}
int64_t ImportanceTileBytes(const SparseAttentionExtent& extent) {
  return kTileTokens * extent.num_kv_heads * ImportanceStride(extent) *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace

bool CanPrefillCompressed(const CompressedAttentionArgs& args) {
  const DType dtype = args.q.dtype();
  const int64_t d_k = args.rows.d_k(), d_v = args.rows.d_v();
  const int64_t page_rows = args.shape.rows_per_page(), offset = args.shape.row_offset();
  return (dtype == DType::kBF16 || dtype == DType::kF16) && args.rows.k.dtype() == dtype &&
         args.out.dtype() == dtype &&
         ((d_k == d_v && (d_k == 64 || d_k == 128)) || (d_k == 192 && d_v == 128)) &&
         args.q.dim(1) == kGroup * args.rows.num_kv_heads() &&
         ((page_rows == 4 && offset <= 1) || page_rows == 1);
}

PrefillImportance PlacePrefillImportance(const SparseAttentionExtent& extent, void* scratch) {
  return {.data = static_cast<float*>(scratch),
          .stride = ImportanceStride(extent),
          .max_tiles = PrefillImportanceBytes(extent) / ImportanceTileBytes(extent)};
}

int64_t PrefillImportanceBytes(const SparseAttentionExtent& extent) {
  constexpr int64_t kMaxBytes = int64_t{1} << 30;
  const int64_t tile_bytes = ImportanceTileBytes(extent);
  // A sequence's tokens fill tiles but for its first and last.
  const int64_t num_tiles =
      std::min(extent.num_tokens, extent.num_tokens / kTileTokens + 2 * extent.num_seqs);
  // Not rounded to whole tiles: more for a larger extent, as scratch is taken once for the largest.
  return std::min(std::max<int64_t>(num_tiles, 1) * tile_bytes, std::max(kMaxBytes, tile_bytes));
}

void LaunchPrefillCompressed(const CompressedAttentionArgs& args, const PrefillRows& rows,
                             const PrefillImportance& importance, int num_sms,
                             cudaStream_t stream) {
  NSA_CHECK(CanPrefillCompressed(args)) << args.q.ToString() << " " << args.rows.k.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  NSA_CHECK_LE(args.tokens.tiles.dim(0), importance.max_tiles);
  const Params params{.items = MakeItemSpace(args, rows, kItemTokens),
                      .lse = args.lse.data<float>(),
                      .out = args.out.raw(),
                      .importance = importance.data,
                      .importance_stride = static_cast<int32_t>(importance.stride),
                      .block_tokens = static_cast<int32_t>(args.shape.block_tokens),
                      .num_selected = static_cast<int32_t>(args.shape.num_selected),
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
