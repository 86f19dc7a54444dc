// Grid: (tiles of 64 rows, KV heads, sequences). Every block finds out from the step's tiles how
// many rows its sequence needs, copies its share, 16 bytes a thread, and takes the norms of its K.
// Bound by memory latency: at 64k tokens and 4 heads it moves 2 x 8 MiB.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <climits>

#include "base/check.h"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/sm90/prefill_compressed_rows.h"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;

struct GatherParams {
  const int4* tiles;  // sequence, first packed token, tokens, first position
  const uint4* k;     // [num_pages, num_kv_heads, page_rows, d_k], 8 elements each
  const uint4* v;
  const int32_t* table;
  uint4* k_out;
  uint4* v_out;
  int* k_square;  // [sequences, heads], of floats
  bool bf16;
  int64_t rows_stride;
  int32_t num_tiles, table_width, page_rows, first_row, span_tokens, span_stride;
  int32_t chunks_k, chunks_v;  // 16-byte chunks of a row
};

// The row after the last one that `sequence` sees in this step.
__device__ int EndRow(const GatherParams& p, int sequence) {
  int num_tokens = 0;
  for (int i = threadIdx.x; i < p.num_tiles; i += kThreads) {
    const int4 tile = p.tiles[i];
    if (tile.x == sequence) num_tokens = max(num_tokens, tile.w + tile.z);
  }
  __shared__ int longest;
  if (threadIdx.x == 0) longest = 0;
  __syncthreads();
  if (num_tokens > 0) atomicMax(&longest, num_tokens);
  __syncthreads();
  return longest < p.span_tokens ? 0 : p.first_row + (longest - p.span_tokens) / p.span_stride + 1;
}

__device__ float SumOfSquares(const uint4& chunk, bool bf16) {
  const uint32_t pairs[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
  float sum = 0;
  for (const uint32_t pair : pairs) {
    const float2 x = bf16 ? __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair))
                          : __half22float2(reinterpret_cast<const __half2&>(pair));
    sum += x.x * x.x + x.y * x.y;
  }
  return sum;
}

// f(place in the tile, 16 bytes) is called for all that is copied.
template <typename F>
__device__ void CopyRows(const GatherParams& p, const uint4* in, uint4* out, int chunks,
                         int end_row, F&& f) {
  const int64_t head = blockIdx.y, num_heads = gridDim.y;
  const int64_t first_out = (blockIdx.z * num_heads + head) * p.rows_stride;
  const int32_t* table = p.table + static_cast<int64_t>(blockIdx.z) * p.table_width;
  for (int i = threadIdx.x; i < kPrefillTileRows * chunks; i += kThreads) {
    const int place = i / chunks;
    const int row = blockIdx.x * kPrefillTileRows + TileRowAt(place);
    uint4 value = {0, 0, 0, 0};
    if (row >= p.first_row && row < end_row) {
      const int64_t page = table[row / p.page_rows];
      value =
          in[((page * num_heads + head) * p.page_rows + row % p.page_rows) * chunks + i % chunks];
    }
    out[(first_out + blockIdx.x * kPrefillTileRows + place) * chunks + i % chunks] = value;
    f(place, value);
  }
}

__global__ void __launch_bounds__(kThreads) GatherRowsKernel(const GatherParams p) {
  const int end_row = EndRow(p, blockIdx.z);
  if (blockIdx.x * kPrefillTileRows >= end_row) return;
  __shared__ float squares[kPrefillTileRows];
  if (threadIdx.x < kPrefillTileRows) squares[threadIdx.x] = 0;
  __syncthreads();
  CopyRows(p, p.k, p.k_out, p.chunks_k, end_row, [&](int place, const uint4& chunk) {
    // In any order: the sum only lets a search for maxima be left out that would find nothing.
    atomicAdd(&squares[place], SumOfSquares(chunk, p.bf16));
  });
  CopyRows(p, p.v, p.v_out, p.chunks_v, end_row, [](int, const uint4&) {});
  __syncthreads();
  if (threadIdx.x < kPrefillTileRows) {
    // Squares are not negative, so they compare like their bits. A NaN is larger than all.
    const int largest =
        __reduce_max_sync(kAllLanes, __float_as_int(squares[threadIdx.x]) & INT_MAX);
    if (threadIdx.x % 32 == 0) {
      atomicMax(&p.k_square[blockIdx.z * gridDim.y + blockIdx.y], largest);
    }
  }
}

int64_t RowsStride(int64_t max_pages, int64_t page_rows) {
  return (max_pages * page_rows + kPrefillTileRows - 1) / kPrefillTileRows * kPrefillTileRows;
}

}  // namespace

PrefillRows PlacePrefillRows(const PagedKv& rows, void* scratch) {
  const int64_t stride = RowsStride(rows.table.dim(1), rows.page_rows());
  const int64_t num_rows = rows.table.dim(0) * rows.num_kv_heads() * stride;
  char* k = static_cast<char*>(scratch);
  char* v = k + num_rows * rows.d_k() * DTypeBytes(rows.k.dtype());
  return {
      .k = k,
      .v = v,
      .k_square = reinterpret_cast<float*>(v + num_rows * rows.d_v() * DTypeBytes(rows.v.dtype())),
      .rows_stride = stride,
      .num_rows_in_all = num_rows};
}

int64_t PrefillRowsBytes(const SparseAttentionExtent& extent) {
  const int64_t row_bytes = (extent.d_k + extent.d_v) * DTypeBytes(extent.cache_dtype);
  return extent.num_seqs * extent.num_kv_heads *
         (RowsStride(extent.max_pages, extent.shape.rows_per_page()) * row_bytes +
          static_cast<int64_t>(sizeof(float)));
}

void LaunchGatherPrefillRows(const NsaShape& shape, const TokenMap& tokens, const PagedKv& rows,
                             const PrefillRows& copies, cudaStream_t stream) {
  const int64_t element_bytes = DTypeBytes(rows.k.dtype());
  const GatherParams params{
      .tiles = static_cast<const int4*>(tokens.tiles.raw()),
      .k = static_cast<const uint4*>(rows.k.raw()),
      .v = static_cast<const uint4*>(rows.v.raw()),
      .table = rows.table.data<int32_t>(),
      .k_out = static_cast<uint4*>(const_cast<void*>(copies.k)),
      .v_out = static_cast<uint4*>(const_cast<void*>(copies.v)),
      .k_square = reinterpret_cast<int*>(copies.k_square),
      .bf16 = rows.k.dtype() == DType::kBF16,
      .rows_stride = copies.rows_stride,
      .num_tiles = static_cast<int32_t>(tokens.tiles.dim(0)),
      .table_width = static_cast<int32_t>(rows.table.dim(1)),
      .page_rows = static_cast<int32_t>(rows.page_rows()),
      .first_row = static_cast<int32_t>(shape.row_offset()),
      .span_tokens = static_cast<int32_t>(shape.span_tokens),
      .span_stride = static_cast<int32_t>(shape.span_stride),
      .chunks_k = static_cast<int32_t>(rows.d_k() * element_bytes / sizeof(uint4)),
      .chunks_v = static_cast<int32_t>(rows.d_v() * element_bytes / sizeof(uint4))};
  const dim3 grid(static_cast<unsigned>(copies.rows_stride / kPrefillTileRows),
                  static_cast<unsigned>(rows.num_kv_heads()),
                  static_cast<unsigned>(rows.table.dim(0)));
  NSA_CHECK(cudaMemsetAsync(copies.k_square, 0, grid.y * grid.z * sizeof(float), stream) ==
            cudaSuccess);
  GatherRowsKernel<<<grid, kThreads, 0, stream>>>(params);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << "gather of compressed rows";
}

}  // namespace nsa::cuda
