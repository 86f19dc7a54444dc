// Portable SelectBlocks: a block works through (token, KV head) items; importance lies in the
// block's row of the scratch, then a radix search finds the importance of the last block that is
// chosen, and one warp writes the choice in ascending order. Bytes: the keys of the visible rows
// once per kTileHeads heads and item. Deterministic: per row the heads are summed in ascending
// order, per block the rows; counts are integers.

#include "kernels/backends.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/nsa/score_tile.cuh"

namespace nsa::cuda {
namespace {

constexpr int kDigitBits = 8;
constexpr int kNumBins = 1 << kDigitBits;

template <typename T>
struct SelectParams {
  NsaShape shape;
  const int32_t* sequence;  // [T]
  const int32_t* position;  // [T]
  const void* q;            // [T, H, d_k]
  DType q_dtype;
  DevicePagedKv<T> rows;
  const float* lse;  // [T, H]
  int32_t* blocks;   // [T, K, num_selected]
  float* scratch;    // [gridDim.x, scratch_width]
  int64_t scratch_width;
  int64_t num_items;
  int32_t group_size;
  float softmax_scale;
};

struct Shared {
  ScoreTile tile;
  float row_sums[kTileRows];  // probabilities of a row, summed over the heads
  int32_t histogram[kNumBins];
  uint32_t digit;  // results of one round of the radix search
  int32_t num_above;
};

// One round of adding a tile's row sums to the blocks that they overlap: a thread per block, rows
// ascending, so that a block's order of addition is the sequence's.
__device__ void AddToBlocks(const NsaShape& shape, const float* row_sums, int32_t tile_begin,
                            int32_t tile_end, int32_t num_blocks, float* importance) {
  const auto a = static_cast<int32_t>(shape.rows_per_page());
  const auto width = a + static_cast<int32_t>(shape.row_offset());  // rows that a block gathers
  const int32_t first = max(0, (tile_begin - width) / a);
  const int32_t last = min(num_blocks - 1, (tile_end - 1) / a);
  const int32_t tile_first = tile_begin / kTileRows * kTileRows;
  for (int32_t j = first + static_cast<int32_t>(threadIdx.x); j <= last; j += kTileThreads) {
    const int32_t from = max(tile_begin, a * j), to = min(tile_end, a * j + width);
    float sum = importance[j];
    for (int32_t r = from; r < to; ++r) {
      sum += static_cast<float>(shape.RowWeight(r - a * j)) * row_sums[r - tile_first];
    }
    importance[j] = sum;
  }
}

// importance[0 .. num_blocks) of one item. Ends with a barrier.
template <typename T>
__device__ void ComputeImportance(const SelectParams<T>& params, int64_t token, int32_t kv_head,
                                  int32_t num_blocks, float* q, float* importance, Shared& shared) {
  const NsaShape& shape = params.shape;
  const int32_t d_k = params.rows.d_k;
  const int64_t first_head = (token * params.rows.num_kv_heads + kv_head) * params.group_size;
  const auto begin = static_cast<int32_t>(shape.row_offset());
  const int32_t end = begin + static_cast<int32_t>(shape.NumRows(params.position[token] + 1));
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  for (int32_t j = static_cast<int32_t>(threadIdx.x); j < num_blocks; j += kTileThreads) {
    importance[j] = 0;
  }
  for (int32_t row = begin / kTileRows * kTileRows; row < end; row += kTileRows) {
    FindRows(params.rows, nullptr, params.sequence[token], kv_head, row, begin, end, shared.tile);
    float sum = 0;  // of the lane's row, in the first warp
    for (int32_t part = 0; part < params.group_size; part += kTileHeads) {
      const int num_heads = min(kTileHeads, params.group_size - part);
      LoadQueries(params.q, params.q_dtype, (first_head + part) * d_k, num_heads * d_k, q);
      __syncthreads();
      ScoreRows(params.rows, q, num_heads, shared.tile);
      if (threadIdx.x < kWarpThreads && shared.tile.rows[lane] >= 0) {
        for (int head = 0; head < num_heads; ++head) {
          const float score = shared.tile.scores[head][lane];
          const float log_p = score * params.softmax_scale - params.lse[first_head + part + head];
          sum += exp2f(log_p * kLog2E);
        }
      }
      __syncthreads();  // scores and queries may be overwritten
    }
    if (threadIdx.x < kWarpThreads) shared.row_sums[lane] = sum;
    __syncthreads();
    AddToBlocks(shape, shared.row_sums, max(begin, row), min(end, row + kTileRows), num_blocks,
                importance);
  }
  __syncthreads();
}

// Importance is a sum of non-negative numbers, so its bits order like it.
__device__ __forceinline__ uint32_t Key(float importance) { return __float_as_uint(importance); }

// The cut of the ranking: candidates with a larger key are chosen, and the first num_at_key of
// those that have it.
struct Cut {
  uint32_t key;
  int32_t num_at_key;
};

// Of the blocks that are not forced, the num_wanted best; 1 <= num_wanted <= how many there are.
__device__ Cut FindCut(const NsaShape& shape, const float* importance, int32_t num_blocks,
                       int32_t num_wanted, Shared& shared) {
  uint32_t prefix = 0;
  int32_t num_above = 0;  // candidates above the prefix
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    for (int i = static_cast<int>(threadIdx.x); i < kNumBins; i += kTileThreads) {
      shared.histogram[i] = 0;
    }
    __syncthreads();
    for (int32_t j = static_cast<int32_t>(threadIdx.x); j < num_blocks; j += kTileThreads) {
      if (shape.IsForced(j, num_blocks - 1)) continue;
      const uint32_t key = Key(importance[j]);
      const bool same_prefix =
          shift + kDigitBits == 32 || (key ^ prefix) >> (shift + kDigitBits) == 0;
      if (same_prefix) atomicAdd(&shared.histogram[key >> shift & (kNumBins - 1)], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = kNumBins - 1;
      while (bin > 0 && num_above + shared.histogram[bin] < num_wanted) {
        num_above += shared.histogram[bin--];
      }
      shared.digit = static_cast<uint32_t>(bin);
      shared.num_above = num_above;
    }
    __syncthreads();
    prefix |= shared.digit << shift;
    num_above = shared.num_above;
  }
  return {prefix, num_wanted - num_above};
}

// One warp: the forced blocks and those that the cut keeps, ascending, then -1.
__device__ void WriteChosen(const NsaShape& shape, const float* importance, int32_t num_blocks,
                            Cut cut, int32_t* blocks) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const uint32_t lower_lanes = (1U << lane) - 1;
  const auto num_selected = static_cast<int32_t>(shape.num_selected);
  int32_t num_chosen = 0, num_at_key = 0;
  for (int32_t first = 0; first < num_blocks; first += kWarpThreads) {
    const int32_t j = first + lane;
    const bool is_block = j < num_blocks;
    const bool is_forced = is_block && shape.IsForced(j, num_blocks - 1);
    const uint32_t key = is_block ? Key(importance[j]) : 0;
    const bool at_key = is_block && !is_forced && key == cut.key;
    const uint32_t at_key_lanes = __ballot_sync(kAllLanes, at_key);
    const bool is_kept = at_key && num_at_key + __popc(at_key_lanes & lower_lanes) < cut.num_at_key;
    const bool is_chosen = is_forced || is_kept || (is_block && !is_forced && key > cut.key);
    const uint32_t chosen_lanes = __ballot_sync(kAllLanes, is_chosen);
    const int32_t place = num_chosen + __popc(chosen_lanes & lower_lanes);
    if (is_chosen && place < num_selected) blocks[place] = j;
    num_chosen += __popc(chosen_lanes);
    num_at_key += __popc(at_key_lanes);
  }
  for (int32_t i = num_chosen + lane; i < num_selected; i += kWarpThreads) blocks[i] = -1;
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads) SelectKernel(SelectParams<T> params) {
  extern __shared__ float q[];  // [kTileHeads][d_k]
  __shared__ Shared shared;
  const NsaShape& shape = params.shape;
  const auto num_selected = static_cast<int32_t>(shape.num_selected);
  float* importance = params.scratch + blockIdx.x * params.scratch_width;
  for (int64_t item = blockIdx.x; item < params.num_items; item += gridDim.x) {
    const int64_t token = item / params.rows.num_kv_heads;
    const auto kv_head = static_cast<int32_t>(item % params.rows.num_kv_heads);
    const int32_t position = params.position[token];
    const int32_t num_blocks =
        position < 0 ? 0 : position / static_cast<int32_t>(shape.block_tokens) + 1;
    int32_t* blocks = params.blocks + item * num_selected;
    if (num_blocks <= num_selected) {
      for (int32_t i = static_cast<int32_t>(threadIdx.x); i < num_selected; i += kTileThreads) {
        blocks[i] = i < num_blocks ? i : -1;
      }
      continue;
    }
    const auto num_initial = static_cast<int32_t>(shape.num_initial);
    const int32_t first_local =
        max(num_initial, num_blocks - static_cast<int32_t>(shape.num_local));
    const int32_t num_forced = min(num_initial, num_blocks) + max(0, num_blocks - first_local);
    ComputeImportance(params, token, kv_head, num_blocks, q, importance, shared);
    const int32_t num_wanted = num_selected - num_forced;
    // All chosen blocks are forced: nothing lies above the largest key.
    const Cut cut = num_wanted > 0 ? FindCut(shape, importance, num_blocks, num_wanted, shared)
                                   : Cut{0xffffffffU, 0};
    if (threadIdx.x < kWarpThreads) WriteChosen(shape, importance, num_blocks, cut, blocks);
    __syncthreads();  // the scratch row is free for the next item
  }
}

template <typename T>
void Launch(const SelectArgs& args, const Stream& stream) {
  const int64_t num_items = args.tokens.num_tokens() * args.rows.num_kv_heads();
  const SelectParams<T> params{
      .shape = args.shape,
      .sequence = static_cast<const int32_t*>(args.tokens.sequence.raw()),
      .position = static_cast<const int32_t*>(args.tokens.position.raw()),
      .q = args.q.raw(),
      .q_dtype = args.q.dtype(),
      .rows = MakeDevicePagedKv<T>(args.rows),
      .lse = static_cast<const float*>(args.lse.raw()),
      .blocks = static_cast<int32_t*>(args.blocks.raw()),
      .scratch = static_cast<float*>(args.scratch.raw()),
      .scratch_width = args.scratch.dim(1),
      .num_items = num_items,
      .group_size = static_cast<int32_t>(args.q.dim(1) / args.rows.num_kv_heads()),
      .softmax_scale = args.softmax_scale};
  const size_t shared_bytes = static_cast<size_t>(kTileHeads * args.rows.d_k()) * sizeof(float);
  const auto grid = static_cast<unsigned>(std::min(num_items, args.scratch.dim(0)));
  SelectKernel<T><<<grid, kTileThreads, shared_bytes, stream.cuda->stream()>>>(params);
}

}  // namespace

void SelectBlocks(const SelectArgs& args, const Stream& stream) {
  if (args.tokens.num_tokens() == 0) return;
  NSA_CHECK_GE(args.scratch.dim(0), 1);
  NSA_CHECK_GE(args.scratch.dim(1), args.rows.table.dim(1));
  DispatchDevice(args.rows.k.dtype(), [&]<typename T>() { Launch<T>(args, stream); });
  CheckLaunch();
}

}  // namespace nsa::cuda
