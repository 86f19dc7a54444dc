// Attention over the compressed rows, and what the choice of blocks needs of it: for every head of
// a token and every block the sum of its rows' weights, rounded to bf16. A weight is 2^(score -
// shift). The shift is the maximum of the row's first tile and stays that, unless a weight would
// not fit (MoveShift), so that nothing is rescaled and blocks of a row can be compared. Once a row
// is through, its sum tells what its weights are as probabilities (prefill_choose.cu).
//
// A block serves one item at a time: the 16 query heads of one KV head of up to 8 tokens are 128
// rows of Q, 64 for each of two consumer warpgroups; a warp has one token. A producer thread keeps
// a ring of 64-row tiles of K and V filled. They are walked from the last to the first, so that the
// tile that needs a mask comes first.
//
// While a consumer weighs the scores of one tile, the tensor cores multiply what it has issued
// before: the outputs of the tile before and the scores of the tile after. The tiles of all items
// form one stream, so this holds across items too.
//
// Threads: 2 x 128 consumers, 128 producers of which one issues copies and one warp writes what
// items that see no row get. Shared memory: Plan. Bound by the tensor cores and their power: 4 * d
// flop per query head and visible row; exponentials take half of that time on the special function
// units. Reads of K and V come from L2, 32 KiB per 4.2 MFLOP; written are 2 bytes per query head
// and visible block.

#include "base/check.h"
#include "kernels/cuda/instances.h"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_compressed_items.cuh"
#include "kernels/cuda/sm90/prefill_compressed_queries.cuh"
#include "kernels/cuda/sm90/prefill_compressed_values.cuh"
#include "kernels/cuda/sm90/prefill_kernel.cuh"
#include "kernels/cuda/sm90/prefill_sum_blocks.cuh"

namespace nsa::cuda {
namespace {

constexpr int kConsumers = 2;  // warpgroups
constexpr int kConsumerTokens = 4;
constexpr int kConsumerRows = kConsumerTokens * kPrefillGroup;
constexpr int kItemTokens = kConsumers * kConsumerTokens;
constexpr int kQueryRows = kConsumers * kConsumerRows;
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kConsumerWarps = kConsumers * 4;
constexpr int kConsumerRegisters = 240;
constexpr int kProducerRegisters = 24;
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kMaxScale = 0x1p60f;  // of weights to block sums, so that those of a block fit

struct Maps {
  CUtensorMap q;  // [T, H, d_k], box [8, 16, 64]
  CUtensorMap k;  // [all rows, d_k], box [64, 64]
  CUtensorMap v;
};

struct Params {
  ItemSpace items;
  float* lse;             // [T, H]
  void* out;              // [T, H, d_v]
  const float* k_square;  // PrefillRows
  PrefillBlockSums block_sums;
  int32_t block_tokens, num_selected;
  int32_t num_heads;
  float scale_log2;  // softmax scale * log2(e)
};

// What the producer tells the consumers with each Q.
struct Work {
  int32_t first_token, num_tokens, first_position, kv_head, place;
  int32_t num_tiles;  // 0: no more work
  float k_square;     // PrefillRows
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
    InitBarrier(QEmpty(), kConsumerWarps * kWarpArrivals);
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(Full(i), 1);
      InitBarrier(Empty(i), kConsumerWarps * kWarpArrivals);
    }
    FenceBarrierInit();
  }
};

// ---- Producer: one thread -----------------------------------------------------------------------

template <int kDk, int kDv>
__device__ void Produce(const Maps& maps, const Params& p, const Plan<kDk, kDv>& plan) {
  using P = Plan<kDk, kDv>;
  uint32_t q_parity = 0;
  Ring<P::kStages> ring;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0) continue;
    const int num_tiles = p.items.NumTiles(item, kTileRows);
    if (num_tiles == 0) continue;
    Wait(plan.QEmpty(), q_parity ^ 1);
    *plan.work = {item.first_token,
                  item.num_tokens,
                  item.first_position,
                  item.kv_head,
                  item.place,
                  num_tiles,
                  p.k_square[item.first_row / p.items.rows_stride]};
    ArriveExpectBytes(plan.QFull(), P::kBytesQ);
    for (int slice = 0; slice < P::kSlicesK; ++slice) {
      LoadBox3(plan.Q() + slice * P::kSliceBytesQ, &maps.q, plan.QFull(), slice * kColumns,
               item.kv_head * kPrefillGroup, item.first_token);
    }
    q_parity ^= 1;
    for (int tile = num_tiles - 1; tile >= 0; --tile) {
      const int row = item.first_row + tile * kTileRows;
      const uint32_t full = plan.Full(ring.stage);
      Wait(plan.Empty(ring.stage), ring.parity ^ 1);
      ArriveExpectBytes(full, P::kBytesK + P::kBytesV);
      for (int slice = 0; slice < P::kSlicesK; ++slice) {
        LoadBox2(plan.K(ring.stage) + slice * P::kSliceBytes, &maps.k, full, slice * kColumns, row);
      }
      for (int slice = 0; slice < P::kSlicesV; ++slice) {
        LoadBox2(plan.V(ring.stage) + slice * P::kSliceBytes, &maps.v, full, slice * kColumns, row);
      }
      ring.Advance();
    }
  }
  Wait(plan.QEmpty(), q_parity ^ 1);
  plan.work->num_tiles = 0;
  Arrive(plan.QFull());
}

// Items that see no rows at all: output 0, lse -inf. One warp.
template <int kDv>
__device__ void StoreEmptyItems(const Params& p) {
  constexpr int kChunks = kDv / 8;
  const int lane = threadIdx.x % 32;
  for (int i = blockIdx.x; i < p.items.num_items(); i += gridDim.x) {
    const Item item = GetItem(p.items, i);
    if (item.num_tokens <= 0 || p.items.NumTiles(item, kTileRows) > 0) continue;
    for (int row = 0; row < item.num_tokens * kPrefillGroup; ++row) {
      const int64_t to =
          static_cast<int64_t>(item.first_token + row / kPrefillGroup) * p.num_heads +
          item.kv_head * kPrefillGroup + row % kPrefillGroup;
      if (lane < kChunks) static_cast<uint4*>(p.out)[to * kChunks + lane] = {0, 0, 0, 0};
      if (lane == 0) p.lse[to] = -INFINITY;
    }
  }
}

// ---- Consumers ----------------------------------------------------------------------------------

// This warp's token of an item.
struct WarpToken {
  int32_t head = -1;    // packed token * num_heads + this thread's first head; -1: none
  int32_t blocks = -1;  // index of its first block sums; -1: all blocks are chosen anyway
  int32_t end_row = 0;

  WarpToken() = default;
  __device__ __forceinline__ WarpToken(const Params& p, const Work& work) {
    const int token = threadIdx.x / 32;
    const int position = work.first_position + token;
    end_row = p.items.EndRow(position + 1);
    if (token >= work.num_tokens) return;
    head = (work.first_token + token) * p.num_heads + work.kv_head * kPrefillGroup +
           threadIdx.x % 32 / 4;
    if (position / p.block_tokens >= p.num_selected) {
      blocks = static_cast<int32_t>(
          ((work.place + token) * p.items.num_kv_heads.divisor() + work.kv_head) *
          p.block_sums.stride);
    }
  }
};

// Hides the rows of a tile that the token does not see.
__device__ __forceinline__ void Mask(float (&s)[kScores], int tile, int first_row, int end_row) {
  const int first = tile * kTileRows + threadIdx.x % 4 * 16;  // of this lane
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    const int row = first + i / 4 * 2 + i % 2;
    if (row < first_row || row >= end_row) s[i] = -INFINITY;
  }
}

// One consumer warpgroup. Scores and probabilities of two neighbouring tiles of the stream are in
// turn in one of two sets of registers.
template <typename T, int kDk, int kDv, typename G>
class Consumer {
  using P = Plan<kDk, kDv>;
  static constexpr float kRoom = kMaxWeightBits<T>;

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
    ahead_.Advance();
    while (true) {
      if (!Step<0, false>()) break;
      StepInside<1>();
      if (!Step<1, false>()) break;
      StepInside<0>();
    }
  }

 private:
  // Waits for the next item and loads its queries; false if there is none.
  __device__ __forceinline__ bool TakeItem() {
    Wait(plan_.QFull(), q_parity_);
    if (plan_.work->num_tiles == 0) return false;
    tile_ = plan_.work->num_tiles - 1;
    last_inside_ = tile_ - 2;
    queries_.Load(plan_.Q(), threadIdx.x / 128 * kConsumerRows);
    const float2 squares = queries_.Squares();
    // By Cauchy and Schwarz no score is larger; 1.01 covers how all of it is rounded.
    const float k_square = plan_.work->k_square * (1.01f * p_.scale_log2 * p_.scale_log2);
    limit_[0] = sqrtf(squares.x * k_square);
    limit_[1] = sqrtf(squares.y * k_square);
    return true;
  }
  __device__ __forceinline__ void StartItem() {
    token_ = WarpToken(p_, *plan_.work);
    shift_[0] = shift_[1] = sum_[0] = sum_[1] = next_[0] = next_[1] = 0;
    scale_[0] = scale_[1] = 1;
    is_scaled_ = false;
  }
  // After the first product that has read them.
  __device__ __forceinline__ void ReleaseQueries() {
    __syncwarp();
    ArriveForWarp(threadIdx.x % 32, plan_.QEmpty());
    q_parity_ ^= 1;
  }

  // Steps from s_[kFirst] on while nothing but whole tiles of one item is concerned.
  template <int kFirst>
  __device__ __forceinline__ void StepInside() {
    if (tile_ < 2 || tile_ > last_inside_) return;
    fits_ = __all_sync(kAllLanes, limit_[0] <= shift_[0] + kRoom && limit_[1] <= shift_[1] + kRoom);
    while (tile_ >= 2) {
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
    if (has_next && !ahead_is_full_) Wait(plan_.Full(ahead_.stage), ahead_.parity);
    if constexpr (!kInside) Mask(s_[kNow], tile, p_.items.first_row, token_.end_row);
    bool moves = false;
    if (!kInside || !fits_) [[unlikely]]
      moves = MoveShift<kInside>(s_[kNow]);
    PinRegisters(s_[kOther]);
    PinRegisters(o_);
    FenceWgmma();
    // The first tile of all has no outputs before it, the last one no scores after it. They are
    // computed from whatever is there, and dropped.
    float weights[kScores];
    IssueOutputs<T, kDv>(
        o_, packed_[kOther], plan_.V(before_), kInside || accumulate_,
        [&](int step, int num_steps) { Weigh(s_[kNow], 0, step, num_steps, weights); });
    queries_.IssueScores(s_[kOther], plan_.K(ahead_.stage), [&](int step, int num_steps) {
      Weigh(s_[kNow], kScores / 2, step, num_steps, weights);
    });
    ahead_.Advance();
    ahead_is_full_ = TestWait(plan_.Full(ahead_.stage), ahead_.parity);

    Pack<T>(weights, packed_[kNow]);
    Sum(weights, tile);
    PinRegisters(weights);
    // A branch, rarely taken, that ptxas does not move the wait across: without it the exponentials
    // would come after the wait and overlap with nothing.
    if (!ahead_is_full_ && tile_ > 0) [[unlikely]] {
      Wait(plan_.Full(ahead_.stage), ahead_.parity);
      ahead_is_full_ = true;
    }
    WaitWgmma<0>();
    PinRegisters(s_[kOther]);
    PinRegisters(o_);
    __syncwarp();
    if (kInside || has_outputs_) ArriveForWarp(threadIdx.x % 32, plan_.Empty(before_));
    if (++before_ == P::kStages) before_ = 0;
    if (moves) [[unlikely]] {
#pragma unroll
      for (int i = 0; i < kDv / 2; ++i) o_[i] *= factor_[i / 2 % 2];
    }
    if constexpr (kInside) return true;
    has_outputs_ = true;
    if (completes_) StoreItem();  // the tile before was its item's last
    accumulate_ = !completes_;
    completes_ = is_last;
    if (is_last) {
      done_ = {token_.head,
               {SumOfWeights<G>(sum_[0], next_[0]), SumOfWeights<G>(sum_[1], next_[1])},
               {shift_[0], shift_[1]},
               {scale_[0], scale_[1]}};
      if (!has_next) return Finish<kNow>();
      StartItem();
      ReleaseQueries();
    }
    return true;
  }

  // Part `part` of `num_parts` of half of the scores, from `first` on, become weights.
  __device__ __forceinline__ void Weigh(const float (&s)[kScores], int first, int part,
                                        int num_parts, float (&weights)[kScores]) const {
    const int size = (kScores / 2 + num_parts - 1) / num_parts;
#pragma unroll
    for (int i = first + part * size; i < first + (part + 1) * size; ++i) {
      if (i >= first + kScores / 2) continue;
      weights[i] = Exp2(fmaf(s[i], p_.scale_log2, -shift_[i / 2 % 2]));
    }
  }

  // Moves the unit of the weights so that those of scores `s` fit: to the row's maximum for its
  // first scores, later only where they would grow past 2^kRoom. Block sums stay in the first unit:
  // scale_ makes them, until it is past kMaxScale (of bf16 rows: at their first move). True if what
  // was summed before has to be multiplied by factor_.
  template <bool kInside>
  __device__ __forceinline__ bool MoveShift(const float (&s)[kScores]) {
    float top[2] = {s[0], s[2]};
#pragma unroll
    for (int i = 1; i < kScores; ++i) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
    const float limit[2] = {shift_[0] + kRoom, shift_[1] + kRoom};
    const bool grows = top[0] * p_.scale_log2 > limit[0] || top[1] * p_.scale_log2 > limit[1];
    if (kInside && !__any_sync(kAllLanes, grows)) [[likely]]
      return false;
    bool moves = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float row_top = fmaxf(top[half], __shfl_xor_sync(kAllLanes, top[half], 1));
      row_top = fmaxf(row_top, __shfl_xor_sync(kAllLanes, row_top, 2)) * p_.scale_log2;
      const bool is_first = QuadSum(sum_[half]) == 0;
      factor_[half] = 1;
      if (row_top == -INFINITY || (!is_first && row_top <= limit[half])) continue;
      if (!is_first) {
        factor_[half] = Exp2(shift_[half] - row_top);
        sum_[half] *= factor_[half];
        next_[half] *= factor_[half];
        scale_[half] *= Exp2(row_top - shift_[half]);
        is_scaled_ = moves = true;
      }
      shift_[half] = row_top;
    }
    return __any_sync(kAllLanes, moves);
  }

  // Adds weights up, of rows and of blocks.
  __device__ __forceinline__ void Sum(const float (&weights)[kScores], int tile) {
    float blocks[2][G::kLaneBlocks];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      SumBlocks<G>(weights, half, sum_[half], next_[half], blocks[half]);
      if (is_scaled_) [[unlikely]] {
#pragma unroll
        for (float& block : blocks[half]) block *= scale_[half];
      }
    }
    if (token_.blocks < 0) return;
    const int lane = threadIdx.x % 32;
    constexpr int kLaneQuads = G::kLaneBlocks / 4;
    uint4* out = p_.block_sums.data + token_.blocks +
                 (tile * 4 + lane % 4) * (kLaneQuads * kBlockSumsOfQuad) + lane / 4;
#pragma unroll
    for (int i = 0; i < kLaneQuads; ++i) {
      uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[j] = PackPair<__nv_bfloat16>(blocks[0][4 * i + j], blocks[1][4 * i + j]);
      }
      __stcs(out + i * kBlockSumsOfQuad, uint4{x[0], x[1], x[2], x[3]});
    }
  }

  // Of an item whose outputs are all added up.
  __device__ __forceinline__ void StoreItem() {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = QuadSum(done_.sum[half]);
      inverse[half] = sum == 0 ? 0.0f : 1.0f / sum;  // 0: it sees nothing
      if (done_.head >= 0 && threadIdx.x % 4 == 0) {
        p_.lse[done_.head + 8 * half] =
            sum == 0 ? -INFINITY : (done_.shift[half] + log2f(sum)) * kLn2;
        p_.block_sums.factors[done_.head + 8 * half] =
            done_.scale[half] > kMaxScale ? kNoFactor : inverse[half] / done_.scale[half];
      }
    }
#pragma unroll
    for (int i = 0; i < kDv / 2; ++i) o_[i] *= inverse[i / 2 % 2];
    StoreOutputs<T, kDv>(p_.out, done_.head, o_);
  }

  // What is left of the last tile of all.
  template <int kNow>
  __device__ __forceinline__ bool Finish() {
    FenceWgmma();
    IssueOutputs<T, kDv>(o_, packed_[kNow], plan_.V(before_), accumulate_, Nothing());
    WaitWgmma<0>();
    PinRegisters(o_);
    StoreItem();
    return false;
  }

  // What is left of an item once all of it is weighed.
  struct Done {
    int32_t head = -1;
    float sum[2], shift[2], scale[2];
  };

  const Params& p_;
  const P& plan_;
  Ring<P::kStages> ahead_;       // of the tile whose scores come next
  int before_ = P::kStages - 1;  // where the values are of the tile whose outputs come next
  uint32_t q_parity_ = 0;
  Queries<T, kDk, kQueryRows> queries_;
  WarpToken token_;         // of the tile that is being weighed
  float shift_[2];          // weights are 2^(scale_log2 * score - shift)
  float sum_[2], next_[2];  // SumBlocks
  float limit_[2];          // of the scores of queries_, by Cauchy and Schwarz
  bool fits_ = false;       // what the limit allows fits without moving the shift
  float factor_[2];         // MoveShift
  float scale_[2];          // to the unit of block sums; 1 unless is_scaled_
  bool is_scaled_ = false;
  int tile_ = 0, last_inside_ = 0;
  bool ahead_is_full_ = false;
  bool has_outputs_ = false;  // there was a tile before
  bool completes_ = true;     // and it was the last one of its item
  bool accumulate_ = false;   // else: and not the first one
  Done done_;                 // of it
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
                                   {num_heads, d_k * kElementBytes, kPrefillGroup},
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

}  // namespace

bool CanPrefillCompressed(const CompressedAttentionArgs& args) {
  const DType dtype = args.q.dtype();
  const int64_t d_k = args.rows.d_k(), d_v = args.rows.d_v();
  const int64_t page_rows = args.shape.rows_per_page(), offset = args.shape.row_offset();
  return HasInstance(dtype, d_k, d_v) && args.rows.k.dtype() == dtype &&
         args.out.dtype() == dtype && args.q.dim(1) == kPrefillGroup * args.rows.num_kv_heads() &&
         ((page_rows == 4 && offset <= 1) || page_rows == 1);
}

void LaunchPrefillCompressed(const CompressedAttentionArgs& args, const PrefillRows& rows,
                             const PrefillBlockSums& block_sums, int num_sms, cudaStream_t stream) {
  NSA_CHECK(CanPrefillCompressed(args)) << args.q.ToString() << " " << args.rows.k.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  NSA_CHECK_LE(args.tokens.tiles.dim(0), block_sums.max_tiles);
  const Params params{.items = MakeItemSpace(args, rows, kItemTokens),
                      .lse = args.lse.data<float>(),
                      .out = args.out.raw(),
                      .k_square = rows.k_square,
                      .block_sums = block_sums,
                      .block_tokens = static_cast<int32_t>(args.shape.block_tokens),
                      .num_selected = static_cast<int32_t>(args.shape.num_selected),
                      .num_heads = static_cast<int32_t>(args.q.dim(1)),
                      .scale_log2 = args.softmax_scale * kLog2E};
  const Maps maps = MakeMaps(args, rows);
  DispatchInstance(args.q.dtype(), args.rows.d_k(), args.rows.d_v(),
                   [&]<typename T, int kDk, int kDv>() {
                     LaunchGeometry<T, kDk, kDv>(args.shape, maps, params, num_sms, stream);
                   });
}

}  // namespace nsa::cuda
