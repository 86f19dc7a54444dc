#pragma once
// A tile of keys against up to kTileHeads query heads in fp32, the step that attention and block
// importance share: both must see the same scores.

#include <cstdint>

#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/device/paged_rows.cuh"
#include "kernels/cuda/device/reduce.cuh"

namespace nsa::cuda {

inline constexpr int kTileRows = 32;  // one per lane; tiles start at multiples of it
inline constexpr int kTileHeads = 16;
inline constexpr int kTileThreads = 128;
inline constexpr int kTileColumns = 64;  // of the keys, staged at a time
inline constexpr float kLog2E = 1.44269504F;

// Shared memory of a tile. The row stride is odd, so that the lanes of a warp, which read one
// column of 32 rows, hit 32 banks.
struct ScoreTile {
  float keys[kTileRows][kTileColumns + 1];
  float scores[kTileHeads][kTileRows];
  int64_t rows[kTileRows];  // index in the cache, -1 outside the visible range
};

// Fills tile.rows: rows [first, first + kTileRows) as far as they lie in [begin, end).
// `chosen` is null, or the blocks whose pages follow one another. Ends with a barrier.
template <typename T>
__device__ void FindRows(const DevicePagedKv<T>& kv, const int32_t* chosen, int64_t sequence,
                         int32_t kv_head, int32_t first, int32_t begin, int32_t end,
                         ScoreTile& tile) {
  __syncthreads();  // the previous tile is no longer read
  if (threadIdx.x < kTileRows) {
    int32_t row = first + static_cast<int32_t>(threadIdx.x);
    const bool is_visible = row >= begin && row < end;
    if (is_visible && chosen != nullptr) {
      row = chosen[row / kv.page_rows] * kv.page_rows + row % kv.page_rows;
    }
    tile.rows[threadIdx.x] = is_visible ? kv.RowIndex(sequence, kv_head, row) : -1;
  }
  __syncthreads();
}

// tile.scores[h][r] = q[h] . key of row r for h < num_heads, columns ascending; 0 for rows outside.
// q [num_heads][d_k] fp32 in shared memory. Ends with a barrier.
template <typename T>
__device__ void ScoreRows(const DevicePagedKv<T>& kv, const float* q, int num_heads,
                          ScoreTile& tile) {
  constexpr int kWarps = kTileThreads / kWarpThreads;
  constexpr int kHeadsPerWarp = kTileHeads / kWarps;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  float sums[kHeadsPerWarp] = {};
  for (int32_t first = 0; first < kv.d_k; first += kTileColumns) {
    const int32_t num_columns = min(kTileColumns, kv.d_k - first);
    if (first > 0) __syncthreads();  // the previous columns have been read
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kTileRows * kTileColumns;
         i += kTileThreads) {
      const int32_t r = i / kTileColumns, c = i % kTileColumns;
      const bool is_there = tile.rows[r] >= 0 && c < num_columns;
      tile.keys[r][c] = is_there ? ToFloat(kv.k[tile.rows[r] * kv.d_k + first + c]) : 0.0F;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kHeadsPerWarp; ++i) {
      const int head = warp + i * kWarps;
      if (head >= num_heads) continue;
      const float* q_row = q + head * kv.d_k + first;
      for (int32_t c = 0; c < num_columns; ++c) sums[i] += q_row[c] * tile.keys[lane][c];
    }
  }
#pragma unroll
  for (int i = 0; i < kHeadsPerWarp; ++i) tile.scores[warp + i * kWarps][lane] = sums[i];
  __syncthreads();
}

// The query heads [first_head, first_head + num_heads) of a token into shared memory as fp32.
__device__ __forceinline__ void LoadQueries(const void* q, DType q_dtype, int64_t first_element,
                                            int32_t num_elements, float* shared) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < num_elements; i += kTileThreads) {
    shared[i] = LoadElement(q, q_dtype, first_element + i);
  }
}

}  // namespace nsa::cuda
