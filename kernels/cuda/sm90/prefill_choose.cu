// Chooses the blocks of a step's tokens from what prefill_compressed.cu has summed up, exactly: the
// sums are rounded to bf16, which bounds what an importance can be off, so that most blocks are
// certainly among the best or certainly not. The few between are computed from Q and K.
//
// A thread block has a tile and a KV head, a warp takes every n-th token of it. The tensor cores
// add heads up, 64 blocks at a time, and importances go to shared memory; the best become a list of
// candidates, and those around the last chosen one get their exact importance. Bound by device
// memory: 2 bytes per query head and block, and the queries.

#include "base/check.h"
#include "kernels/cuda/instances.h"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/prefetch.cuh"
#include "kernels/cuda/sm90/prefill_best_blocks.cuh"
#include "kernels/cuda/sm90/prefill_choose.h"
#include "kernels/cuda/sm90/prefill_kernel.cuh"
#include "kernels/cuda/sm90/prefill_sum_blocks.cuh"

namespace nsa::cuda {
namespace {

constexpr int kBlockWarps = 4;
constexpr int kMinBlocks = 4;  // on a multiprocessor, where importances are few
constexpr int kLanes = 32;
// Rounding moves a sum by 2^-8 of itself at most; the rest covers factors in 16 bits, and what fp32
// does to scores of up to some 100 (base 2) and to their exponentials.
constexpr float kMaxError = 0x1p-8f + 0x1p-13f;
// A rounded importance that is larger by more than this factor is larger.
constexpr float kClear = (1 + kMaxError) / (1 - kMaxError);

struct Params {
  const int4* tiles;  // sequence, first packed token, tokens, first position
  PrefillBlockSums sums;
  SelectRule rule;
  const void* q;     // [T, H, d_k]
  const float* lse;  // [T, H]
  const void* k;     // PrefillRows
  int64_t rows_stride;
  int32_t first_row, span_tokens, span_stride;
  float scale_log2;       // softmax scale * log2(e)
  int32_t shared_blocks;  // importances of a warp, a multiple of FreeBlocks::kStep
  int32_t* blocks;        // [T, num_kv_heads, num_selected]
};

// The blocks that the token at `position` may choose from are those before this one, not the
// initial ones; 0: it has no choice.
__device__ __forceinline__ int EndOfChoice(const SelectRule& rule, int position) {
  const int own = position / rule.block_tokens;
  return own < rule.num_selected || rule.NumFree() == 0 ? 0 : own - rule.num_local + 1;
}

// A token of one KV head.
struct TokenHead {
  int64_t row;        // of q, lse and factors: packed token * num_heads + first head
  int64_t first_row;  // of its sequence and KV head in PrefillRows
  int32_t end_row;    // rows of the model's pages below this are visible
};

// What makes importances of a token's block sums, as right operands of products of 16 blocks: heads
// h and h + 8 are neighbouring rows, and columns 2 j and 2 j + 1 hold the factors' upper and lower
// bits. Operand j has zeros in all other columns, so that four products may share their result.
struct HeadFactors {
  uint32_t b[4][2];
  bool are_known;

  __device__ __forceinline__ explicit HeadFactors(const float* factors) {
    const int lane = threadIdx.x % kLanes, column = lane / 4;
    bool known = true;
    uint32_t pairs[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float part[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float factor = factors[lane % 4 + 4 * i + 8 * e];
        known = known && factor != kNoFactor;
        const float upper = __bfloat162float(__float2bfloat16_rn(factor));
        part[e] = column % 2 == 0 ? upper : factor - upper;
      }
      pairs[i] = PackPair<__nv_bfloat16>(part[0], part[1]);
    }
    are_known = __all_sync(kAllLanes, known);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      b[j][0] = column / 2 == j ? pairs[0] : 0;
      b[j][1] = column / 2 == j ? pairs[1] : 0;
    }
  }
};

// The block sums of a warp's tokens, copied to shared memory ahead of their use in steps of 64
// blocks. A lane copies what it reads: of quads lane / 4 and lane / 4 + 8 what heads lane % 4 and
// lane % 4 + 4 gave.
class SumsAhead {
 public:
  static constexpr int kStages = 4, kStep = 64;
  static constexpr int kBytes = kStages * kStep * kPrefillGroup * 2;

  // Of tokens first_token, first_token + token_step and so on of a tile. `ring`: kBytes of shared
  // memory.
  __device__ __forceinline__ SumsAhead(const Params& p, const int4& tile, const uint4* tile_sums,
                                       int64_t token_stride, int first_token, int token_step,
                                       void* ring)
      : rule_(p.rule),
        num_tokens_(tile.z),
        first_position_(tile.w),
        token_step_(token_step),
        token_(first_token),
        lane_sums_(tile_sums + first_token * token_stride + LaneOffset()),
        token_step_stride_(token_step * token_stride),
        lane_ring_(static_cast<uint4*>(ring) + threadIdx.x % kLanes),
        end_(EndOf(token_)) {
#pragma unroll
    for (int i = 0; i < kStages; ++i) CopyNext(i);
  }

  // The next step's sums: quad lane / 4 and heads lane % 4, the same quad and heads + 4, and both
  // again of the quad 8 later.
  __device__ __forceinline__ void Take(uint32_t (&sums)[4][4]) {
    WaitForCopies<kStages - 1>();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 loaded = lane_ring_[(stage_ * 4 + i) * kLanes];
      sums[i][0] = loaded.x, sums[i][1] = loaded.y, sums[i][2] = loaded.z, sums[i][3] = loaded.w;
    }
    CopyNext(stage_);
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
  }

 private:
  __device__ static int LaneOffset() {
    const int lane = threadIdx.x % kLanes;
    return lane / 4 * kBlockSumsOfQuad + lane % 4;
  }
  __device__ __forceinline__ int EndOf(int token) const {
    return token < num_tokens_ ? EndOfChoice(rule_, first_position_ + token) : 0;
  }
  __device__ __forceinline__ void CopyNext(int stage) {
    while (base_ >= end_ && token_ < num_tokens_) {
      token_ += token_step_;
      lane_sums_ += token_step_stride_;
      base_ = 0;
      end_ = EndOf(token_);
    }
    if (token_ < num_tokens_) {
      const int num_quads = (end_ - base_ + 3) / 4, quad = threadIdx.x % kLanes / 4;
      const uint4* from = lane_sums_ + base_ / 4 * kBlockSumsOfQuad;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        CopyAsync16(SharedAddress(lane_ring_ + (stage * 4 + i) * kLanes),
                    from + i / 2 * (8 * kBlockSumsOfQuad) + i % 2 * 4,
                    quad + i / 2 * 8 < num_quads);
      }
      base_ += kStep;
    }
    CommitCopies();
  }

  const SelectRule& rule_;
  const int num_tokens_, first_position_, token_step_;
  int token_;  // of the step that is copied next
  const uint4* lane_sums_;
  const int64_t token_step_stride_;
  uint4* const lane_ring_;
  int base_ = 0, end_;
  int stage_ = 0;
};

// Importances of the blocks below `end`, as far as rounded sums tell, for FreeBlocks; those below
// `first` cannot be chosen. Returns the best one of this lane's. All lanes.
__device__ __forceinline__ float AddHeads(SumsAhead& sums, const HeadFactors& factors, int first,
                                          int end, float* importance) {
  const int lane = threadIdx.x % kLanes;
  float best = -1;
  int base = 0;
  for (; base < end; base += SumsAhead::kStep) {
    uint32_t s[4][4];
    sums.Take(s);
    float d[4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t blocks[4] = {s[0][j], s[2][j], s[1][j], s[3][j]};
      Mma16x8x16<__nv_bfloat16>(d, blocks, factors.b[j][0], factors.b[j][1]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int block = base + half * kLanes + lane;
      // A NaN counts as 0, so that bad numbers never make a bad index.
      const float value =
          block >= first && block < end ? fmaxf(d[2 * half] + d[2 * half + 1], 0.0f) : -1.0f;
      best = fmaxf(best, value);
      importance[block] = value;
    }
  }
  for (; base % FreeBlocks::kStep != 0; base += kLanes) importance[base + lane] = -1;
  __syncwarp();
  return best;
}

// The queries of a token as left operands of products, and its heads' log-sum-exps. Dot products
// may take columns in any order, so a lane's 16 bytes of a row are its columns of two products.
template <typename T, int kDk>
struct Queries {
  uint32_t a[kDk / 16][4];
  float shift[2];

  __device__ __forceinline__ void Load(const Params& p, const TokenHead& token) {
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = token.row + lane / 4 + 8 * half;
      const auto* chunks = static_cast<const uint4*>(p.q) + row * (kDk / 8) + lane % 4;
#pragma unroll
      for (int t = 0; t < kDk / 32; ++t) {
        const uint4 chunk = chunks[t * 4];
        a[2 * t][half] = chunk.x;
        a[2 * t][2 + half] = chunk.y;
        a[2 * t + 1][half] = chunk.z;
        a[2 * t + 1][2 + half] = chunk.w;
      }
      const float lse = p.lse[row];
      shift[half] = lse == -INFINITY ? 0 : lse * kLog2E;
    }
  }
};

// This lane's columns of the rows that a block gets something of, 16 bytes of every 64.
template <int kDk, typename G>
struct BlockRows {
  static constexpr int kRows = G::kPageRows + (G::kOverlap ? 1 : 0);
  uint4 chunks[kDk / 32];

  __device__ __forceinline__ void Load(const Params& p, const TokenHead& token, int block) {
    constexpr int kTile = static_cast<int>(kPrefillTileRows);
    const int lane = threadIdx.x % kLanes, row = block * G::kPageRows + lane / 4;
    const bool loads = lane / 4 < kRows && row >= p.first_row && row < token.end_row;
    const int place = loads ? row / kTile * kTile + PlaceInTile(row % kTile) : 0;
    const auto* from =
        static_cast<const uint4*>(p.k) + (token.first_row + place) * (kDk / 8) + lane % 4;
#pragma unroll
    for (int t = 0; t < kDk / 32; ++t) chunks[t] = loads ? from[t * 4] : uint4{};
  }
};

// What this lane has of the importance of one block, from its scores. All lanes.
template <typename T, int kDk, typename G>
__device__ __forceinline__ float LaneImportance(const Params& p, const TokenHead& token,
                                                const Queries<T, kDk>& queries,
                                                const BlockRows<kDk, G>& rows, int block) {
  const int lane = threadIdx.x % kLanes;
  float d[4] = {};
#pragma unroll
  for (int t = 0; t < kDk / 32; ++t) {
    Mma16x8x16<T>(d, queries.a[2 * t], rows.chunks[t].x, rows.chunks[t].y);
    Mma16x8x16<T>(d, queries.a[2 * t + 1], rows.chunks[t].z, rows.chunks[t].w);
  }
  float sum = 0;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int i = lane % 4 * 2 + e, row = block * G::kPageRows + i;
    if (i >= rows.kRows || row < p.first_row || row >= token.end_row) continue;
    const float weight = G::kOverlap && i > 0 && i < G::kPageRows ? 2.0f : 1.0f;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum += weight * Exp2(fmaf(d[2 * half + e], p.scale_log2, -queries.shift[half]));
    }
  }
  return sum;
}

// Importances of blocks between which rounding may have confused the choice, from their scores:
// where bit i of `between` is set, lane i gets that of its `block`, and else `value` back. All
// lanes.
template <typename T, int kDk, typename G>
__device__ __forceinline__ float MakeExact(const Params& p, const TokenHead& token,
                                           unsigned between, int block, float value) {
  const int lane = threadIdx.x % kLanes;
  Queries<T, kDk> queries;
  queries.Load(p, token);
  while (between != 0) {  // two at a time, the last one twice if they are odd
    int at[2], mine[2];
    BlockRows<kDk, G> rows[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      at[i] = i == 0 || between != 0 ? __ffs(between) - 1 : at[0];
      between &= between - 1;
      mine[i] = __shfl_sync(kAllLanes, block, at[i]);
      rows[i].Load(p, token, mine[i]);
    }
    float sum[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] = LaneImportance<T, kDk, G>(p, token, queries, rows[i], mine[i]);
    }
    // The lower half of the warp adds up the first one, the upper half the second one.
    const bool is_upper = lane >= kLanes / 2;
    float half = is_upper ? sum[1] : sum[0];
    half += __shfl_xor_sync(kAllLanes, is_upper ? sum[0] : sum[1], kLanes / 2);
#pragma unroll
    for (int bit = kLanes / 4; bit > 0; bit /= 2) half += __shfl_xor_sync(kAllLanes, half, bit);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float exact = __shfl_sync(kAllLanes, half, i * (kLanes / 2));
      if (lane == at[i]) value = fmaxf(exact, 0.0f);  // 0 for a NaN, as in AddHeads
    }
  }
  return value;
}

// The `num_wanted` most important of `blocks`, ascending, to `out`; `best` is the best of each
// lane's. False, and nothing is written, if too many are close to the last one of them.
template <typename T, int kDk, typename G>
__device__ __forceinline__ bool WriteBestOfRounded(const Params& p, const TokenHead& token,
                                                   const FreeBlocks& blocks, float best,
                                                   int num_wanted, int* list, int32_t* out) {
  const int lane = threadIdx.x % kLanes;
  const float bound = LowerBound(best, num_wanted, list) / kClear;
  const int num_found = CollectCandidates(blocks, bound, list);
  if (num_found > kMaxCandidates) return false;
  const Candidate mine(blocks, list, num_found);
  __syncwarp();
  list[lane] = __float_as_int(mine.value);
  __syncwarp();
  // The worst that would be chosen and the best that would not, going by rounded values: rounding
  // may have confused the blocks that are not clear of these two.
  const bool is_wanted = CountLarger(list, __float_as_int(mine.value)) < num_wanted;
  const float last = __int_as_float(
      __reduce_min_sync(kAllLanes, is_wanted ? __float_as_int(mine.value) : INT_MAX));
  const bool is_tie = __popc(__ballot_sync(kAllLanes, is_wanted)) > num_wanted;
  const float next = __int_as_float(__reduce_max_sync(
      kAllLanes, is_wanted && !is_tie ? __float_as_int(-1.0f)
                                      : __float_as_int(is_wanted ? last : mine.value)));
  const bool is_above = is_wanted && mine.value > next * kClear;
  const bool is_between = !is_above && mine.block >= 0 && mine.value >= last / kClear;
  const int num_above = __popc(__ballot_sync(kAllLanes, is_above));
  const unsigned between = __ballot_sync(kAllLanes, is_between);
  bool chosen = is_above || is_between;
  if (num_above + __popc(between) > num_wanted) {
    const float exact = MakeExact<T, kDk, G>(p, token, between, mine.block, mine.value);
    const int num_better = CountBetter(between, exact);
    chosen = is_above || (is_between && num_better < num_wanted - num_above);
  }
  WriteChosen(chosen, mine.block, out);
  __syncwarp();  // the list may be written again
  return true;
}

// The same however many are close, or for all blocks from `first` on where there are no sums:
// slower.
template <typename T, int kDk, typename G>
__device__ __noinline__ void WriteBestOfMany(const Params& p, TokenHead token, FreeBlocks blocks,
                                             int first, int num_wanted, bool has_sums,
                                             float* importance, int* list, int32_t* out) {
  const int lane = threadIdx.x % kLanes;
  float lowest = 0, highest = INFINITY;
  if (has_sums) {
    const RankKey last = __shfl_sync(kAllLanes, BestByRounds(blocks, num_wanted), num_wanted - 1);
    const float value = __uint_as_float(static_cast<uint32_t>(last >> 32));
    lowest = value / kClear;
    highest = value * kClear;
  }
  float best = -1;
  for (int block = lane;
       block - lane < (blocks.end + FreeBlocks::kStep - 1) / FreeBlocks::kStep * FreeBlocks::kStep;
       block += kLanes) {
    const float rounded = has_sums                               ? importance[block]
                          : block >= first && block < blocks.end ? 0.0f
                                                                 : -1.0f;
    const unsigned between = __ballot_sync(kAllLanes, rounded >= lowest && rounded <= highest);
    float value = rounded > highest ? INFINITY : fminf(rounded, 0.0f);
    if (between != 0) value = MakeExact<T, kDk, G>(p, token, between, block, value);
    importance[block] = value;
    best = fmaxf(best, value);
  }
  __syncwarp();
  WriteBest(blocks, best, num_wanted, list, out);
}

// Shared memory of a warp: SumsAhead's, importances, and a list of candidates.
__host__ __device__ constexpr int64_t WarpBytes(int64_t shared_blocks) {
  return SumsAhead::kBytes + (shared_blocks + kMaxCandidates) * static_cast<int64_t>(sizeof(float));
}

// The choice of a token at `position`, num_selected blocks to `out`.
template <typename T, int kDk, typename G>
__device__ __forceinline__ void Choose(const Params& p, const TokenHead& token, int position,
                                       SumsAhead& sums, float* importance, int* list,
                                       int32_t* out) {
  const SelectRule& rule = p.rule;
  const int lane = threadIdx.x % kLanes, own = position / rule.block_tokens;
  if (own < rule.num_selected) {
    if (lane < rule.num_selected) out[lane] = lane <= own ? lane : -1;
    return;
  }
  const int first_local = own - rule.num_local + 1;
  if (lane < rule.num_initial) out[lane] = lane;
  if (lane < rule.num_local) {
    out[rule.num_selected - rule.num_local + lane] = first_local + lane;
  }
  if (rule.NumFree() == 0) return;
  const HeadFactors factors(p.sums.factors + token.row);
  const FreeBlocks blocks{importance, first_local};
  const float best = AddHeads(sums, factors, rule.num_initial, first_local, importance);
  out += rule.num_initial;
  if (factors.are_known &&
      WriteBestOfRounded<T, kDk, G>(p, token, blocks, best, rule.NumFree(), list, out)) {
    return;
  }
  WriteBestOfMany<T, kDk, G>(p, token, blocks, rule.num_initial, rule.NumFree(), factors.are_known,
                             importance, list, out);
}

// Brings near what the choice of a token needs beside its sums. All lanes.
template <typename T, int kDk>
__device__ __forceinline__ void Prefetch(const Params& p, int64_t row) {
  const int lane = threadIdx.x % kLanes;
  if (lane == 0)
    PrefetchBulk(static_cast<const T*>(p.q) + row * kDk, kPrefillGroup * kDk * sizeof(T));
  if (lane == 1) PrefetchGlobal(p.sums.factors + row);
  if (lane == 2) PrefetchGlobal(p.lse + row);
}

template <typename T, int kDk, typename G>
__global__ void __launch_bounds__(kBlockWarps* kLanes, kMinBlocks)
    PrefillChooseKernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) char shared[];
  const int warp = threadIdx.x / kLanes, num_warps = blockDim.x / kLanes;
  char* memory = shared + warp * WarpBytes(p.shared_blocks);
  auto* importance = reinterpret_cast<float*>(memory + SumsAhead::kBytes);
  auto* list = reinterpret_cast<int*>(importance + p.shared_blocks);
  const int64_t head = blockIdx.y, num_kv_heads = gridDim.y;
  const int4 tile = p.tiles[blockIdx.x];
  SumsAhead sums(p, tile,
                 p.sums.data + (blockIdx.x * kTileTokens * num_kv_heads + head) * p.sums.stride,
                 num_kv_heads * p.sums.stride, warp, num_warps, memory);
  for (int i = warp; i < tile.z; i += num_warps) {
    const int position = tile.w + i;
    const TokenHead token{
        .row = ((tile.y + i) * num_kv_heads + head) * kPrefillGroup,
        .first_row = (tile.x * num_kv_heads + head) * p.rows_stride,
        .end_row = position + 1 < p.span_tokens
                       ? 0
                       : p.first_row + (position + 1 - p.span_tokens) / p.span_stride + 1};
    if (i + num_warps < tile.z)
      Prefetch<T, kDk>(p, token.row + num_warps * num_kv_heads * kPrefillGroup);
    Choose<T, kDk, G>(p, token, position, sums, importance, list,
                      p.blocks + ((tile.y + i) * num_kv_heads + head) * p.rule.num_selected);
  }
}

template <typename T, int kDk, typename G>
void LaunchInstance(const SelectArgs& args, Params& params, cudaStream_t stream) {
  const int64_t max_blocks = args.rows.table.dim(1);
  params.shared_blocks = static_cast<int32_t>((max_blocks + FreeBlocks::kStep - 1) /
                                              FreeBlocks::kStep * FreeBlocks::kStep);
  const int64_t warp_bytes = WarpBytes(params.shared_blocks);
  const auto num_warps =
      static_cast<int>(std::min<int64_t>(kBlockWarps, kMaxSharedBytes / warp_bytes));
  NSA_CHECK_GT(num_warps, 0) << max_blocks << " pages";
  const auto kernel = PrefillChooseKernel<T, kDk, G>;
  const auto bytes = static_cast<int>(num_warps * warp_bytes);
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) ==
            cudaSuccess);
  const dim3 grid(static_cast<unsigned>(args.tokens.tiles.dim(0)),
                  static_cast<unsigned>(args.rows.num_kv_heads()));
  kernel<<<grid, num_warps * kLanes, bytes, stream>>>(params);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << "prefill of selection";
}

template <typename T, int kDk>
void LaunchGeometry(const SelectArgs& args, Params& params, cudaStream_t stream) {
  if (args.shape.rows_per_page() == 1) {
    LaunchInstance<T, kDk, Geometry<1, 1>>(args, params, stream);
  } else if (args.shape.row_offset() == 1) {
    LaunchInstance<T, kDk, Geometry<4, 2>>(args, params, stream);
  } else {
    LaunchInstance<T, kDk, Geometry<4, 1>>(args, params, stream);
  }
}

}  // namespace

bool CanPrefillChoose(const SelectArgs& args) {
  return args.shape.num_local >= 1 && args.shape.num_selected <= kMaxPrefillSelected &&
         args.rows.table.dim(1) <= kMaxChoosePages;
}

void LaunchPrefillChoose(const SelectArgs& args, const PrefillRows& rows,
                         const PrefillBlockSums& block_sums, cudaStream_t stream) {
  NSA_CHECK(CanPrefillChoose(args)) << args.rows.table.ToString();
  if (args.tokens.tiles.dim(0) == 0) return;
  NSA_CHECK_LE(args.tokens.tiles.dim(0), block_sums.max_tiles);
  Params params{.tiles = static_cast<const int4*>(args.tokens.tiles.raw()),
                .sums = block_sums,
                .rule = {.block_tokens = static_cast<int32_t>(args.shape.block_tokens),
                         .num_selected = static_cast<int32_t>(args.shape.num_selected),
                         .num_initial = static_cast<int32_t>(args.shape.num_initial),
                         .num_local = static_cast<int32_t>(args.shape.num_local)},
                .q = args.q.raw(),
                .lse = args.lse.data<float>(),
                .k = rows.k,
                .rows_stride = rows.rows_stride,
                .first_row = static_cast<int32_t>(args.shape.row_offset()),
                .span_tokens = static_cast<int32_t>(args.shape.span_tokens),
                .span_stride = static_cast<int32_t>(args.shape.span_stride),
                .scale_log2 = args.softmax_scale * kLog2E,
                .shared_blocks = 0,
                .blocks = args.blocks.data<int32_t>()};
  const bool launched = DispatchKeyInstance(
      args.q.dtype(), args.rows.d_k(),
      [&]<typename T, int kDk>() { LaunchGeometry<T, kDk>(args, params, stream); });
  NSA_CHECK(launched) << args.q.ToString();
}

}  // namespace nsa::cuda
