#pragma once
// What the kernels of CompressRows share (compress_rows.cu says how they work together).

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/checks.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/rotation.cuh"
#include "kernels/nsa.h"

namespace nsa::cuda {

inline constexpr int kCompressThreads = 256;
inline constexpr int kCompressWarps = kCompressThreads / kWarpThreads;
// Rows that one block of the units kernels handles at most.
inline constexpr int kMaxUnitsRows = 32;

// K or V of one cache.
struct SideView {
  void* data;  // [pages, K, page_rows, d]
  const int32_t* table;
  int32_t table_width, page_rows;
};

struct CompressSide {
  SideView raw, rows;
  const float* position;  // [K, span, d], or null
  const void* weight;     // weighted_pool [K, span] f32; linear [K, d, span * d]
  const void* fc1;        // [K, hidden, span * d]
  const void* fc2;        // [K, d, hidden]
  int32_t d;
};

struct CompressParams {
  NsaShape shape;
  PhiKind phi;
  CompressSide sides[2];     // K, V
  const int32_t* sequence;   // [T]
  const int32_t* positions;  // [T]
  int64_t num_tokens;
  const float* inv_freq;  // [d_k / 2], null: no rotation
  DType cache_dtype;
  int32_t num_kv_heads;
  int32_t num_units[2];  // of a side, at most max_units
  int32_t max_units;
  int32_t* emitted;  // [max rows, rounded up to kMaxUnitsRows] token of row e, or -1
  float* units;      // [max rows, num_kv_heads, 2, max_units]
};

// Index, among a side's elements, of the first element of row `row` of a sequence.
__device__ __forceinline__ int64_t ElementOf(const SideView& view, int32_t num_kv_heads,
                                             int32_t sequence, int32_t kv_head, int32_t row,
                                             int32_t d) {
  const int32_t logical = row / view.page_rows;
  const int64_t page =
      view.table[int64_t{sequence} * view.table_width + logical % view.table_width];
  return ((page * num_kv_heads + kv_head) * view.page_rows + (row - logical * view.page_rows)) * d;
}

// The row that a token emits.
__device__ __forceinline__ int32_t RowOf(const CompressParams& params, int64_t token) {
  return static_cast<int32_t>(params.shape.NumRows(params.positions[token] + 1)) - 1;
}

__device__ __forceinline__ float Gelu(float x) {
  constexpr float kSqrtHalf = 0.70710678F;
  return 0.5F * x * (1.0F + erff(x * kSqrtHalf));
}

inline constexpr int kOutputsAtOnce = 8;  // rows of MultiplyUnits: loads in flight

// By a warp: products of kNum rows of num_units elements and `units`; every lane gets all.
template <int kNum, typename W>
__device__ __forceinline__ void MultiplyUnits(const W* const (&rows)[kNum], const float* units,
                                              int32_t num_units, float (&sums)[kNum]) {
#pragma unroll
  for (float& sum : sums) sum = 0;
#pragma unroll 4
  for (auto i = static_cast<int32_t>(threadIdx.x) % kWarpThreads; i < num_units;
       i += kWarpThreads) {
    const float unit = units[i];
#pragma unroll
    for (int j = 0; j < kNum; ++j) sums[j] = __fmaf_rn(ToFloat(rows[j][i]), unit, sums[j]);
  }
#pragma unroll
  for (float& sum : sums) sum = WarpReduce(sum, AddOp());
}

// By how much element c of the emitted key number row_idx is rotated.
__device__ __forceinline__ SinCos RowAngle(const CompressParams& params, int32_t row_idx, int32_t d,
                                           int32_t c) {
  const int32_t half = d / 2;
  return RotationAt(row_idx * static_cast<int32_t>(params.shape.span_stride),
                    params.inv_freq[c < half ? c : c - half]);
}

// The matrix with a row per unit, of phi linear and mlp.
inline const TensorView& UnitMatrix(PhiKind phi, const PhiWeights& weights) {
  return phi == PhiKind::kMlp ? weights.fc1 : weights.weight;
}

// What the kernels get of the operation's operands. The scratch is not set.
CompressParams MakeCompressParams(const CompressArgs& args);

// Sums over the inputs of every unit (hidden units of mlp, with their GELU; outputs of linear) for
// up to max_emitted rows of the step: fills params.emitted and params.units. fp32 accumulation in
// an order that depends on the shape alone.
void LaunchCompressUnits(const CompressParams& params, DType weight_dtype, int64_t max_emitted,
                         const Context& context);

}  // namespace nsa::cuda
