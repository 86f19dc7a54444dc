// The first matrix of phi = mlp and the only one of linear. Grid (tiles of units, heads and sides,
// groups of rows): a group's inputs are staged in shared memory and multiplied with a tile's
// weights, which are so read once per group.
//
// 16-bit weights use the tensor cores: a block has kUnitGroups x 8 units. Few rows (a warp per
// quarter of the inputs, bound by the latency of the weights) and many (a warp takes all quarters,
// bound by L2) give the same bits. Other shapes use fp32 arithmetic.

#include "kernels/cuda/launch.h"
#include "kernels/cuda/nsa/compress_mma.cuh"
#include "kernels/cuda/nsa/emitted.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = kCompressThreads;
constexpr int kWarps = kCompressWarps;

// The rows of a group: where their spans begin.
template <int kRows>
struct GroupRows {
  int32_t tokens[kRows];       // packed
  int32_t first_token[kRows];  // of the span, in its sequence
  int32_t sequence[kRows];
  int32_t warp_counts[kMaxWarps];
};

// Finds the rows of group blockIdx.z; one block of the group leaves them for the finish kernel.
// Ends with a barrier.
template <int kRows>
__device__ int FindGroup(const CompressParams& params, GroupRows<kRows>& group) {
  const int64_t first_row = int64_t{blockIdx.z} * kRows;
  const int num_rows = FindEmitted(params.shape, params.positions, params.num_tokens, first_row,
                                   kRows, group.tokens, group.warp_counts);
  const auto r = static_cast<int>(threadIdx.x);
  if (r < kRows) {
    if (blockIdx.x == 0 && blockIdx.y == 0) {
      params.emitted[first_row + r] = r < num_rows ? group.tokens[r] : -1;
    }
    if (r < num_rows) {
      group.first_token[r] =
          RowOf(params, group.tokens[r]) * static_cast<int32_t>(params.shape.span_stride);
      group.sequence[r] = params.sequence[group.tokens[r]];
    }
  }
  __syncthreads();
  return num_rows;
}

// ---- Tensor cores -------------------------------------------------------------------------------

// kUnitGroups 2: four warps share the quarters of a unit. 8: a warp takes them all.
template <int kUnitGroups>
struct MmaShape {
  static constexpr int kSplits = kWarps / kUnitGroups;  // quarters that are summed at once
  static constexpr int kRows = kSplits == 1 ? 32 : 16;
  static constexpr int kUnits = kUnitGroups * 8;
  static constexpr int kStaged = kSplits * kStepInputs;
  static constexpr int kStride = kStaged + kRowPadding;
};
static_assert(MmaShape<2>::kSplits == kQuarters && MmaShape<8>::kSplits == 1);

template <typename W, int kUnitGroups>
struct MmaShared {
  using Shape = MmaShape<kUnitGroups>;
  alignas(16) W inputs[Shape::kRows][Shape::kStride];
  float partials[Shape::kSplits == 1 ? 1 : kQuarters][Shape::kRows][Shape::kUnits];
  GroupRows<Shape::kRows> group;
};

// Loads 8 raw inputs and adds their position encoding.
template <typename W>
__device__ __forceinline__ void LoadInputs(const CompressParams& params, const CompressSide& side,
                                           int32_t kv_head, int32_t sequence, int32_t first_token,
                                           int32_t input, float (&x)[kLoadInputs]) {
  const int32_t in_span = input / side.d, c = input - in_span * side.d;
  const int64_t from =
      ElementOf(side.raw, params.num_kv_heads, sequence, kv_head, first_token + in_span, side.d) +
      c;
  if (params.cache_dtype == DType::kF32) {
    LoadPack(static_cast<const float*>(side.raw.data) + from, x);
  } else if (params.cache_dtype == DType::kBF16) {
    LoadPack(static_cast<const __nv_bfloat16*>(side.raw.data) + from, x);
  } else {
    LoadPack(static_cast<const __half*>(side.raw.data) + from, x);
  }
  if (side.position == nullptr) return;
  float position[kLoadInputs];
  LoadPack(side.position + (int64_t{kv_head} * params.shape.span_tokens + in_span) * side.d + c,
           position);
#pragma unroll
  for (int i = 0; i < kLoadInputs; ++i) x[i] += position[i];
}

template <typename W, int kUnitGroups>
__global__ void __launch_bounds__(kThreads) MmaUnitsKernel(CompressParams params) {
  using Shape = MmaShape<kUnitGroups>;
  __shared__ MmaShared<W, kUnitGroups> shared;
  BeginDependentKernel();
  const auto kv_head = static_cast<int32_t>(blockIdx.y / 2);
  const CompressSide& side = params.sides[blockIdx.y % 2];
  const int32_t num_units = params.num_units[blockIdx.y % 2];
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int num_rows = FindGroup(params, shared.group);
  const auto first_unit = static_cast<int32_t>(blockIdx.x) * Shape::kUnits;
  if (num_rows == 0 || first_unit >= num_units) return;

  // Phase 1: the weights' place. A warp beyond the last unit repeats it and stores nothing.
  const auto num_inputs = static_cast<int32_t>(params.shape.span_tokens) * side.d;
  const int32_t quarter_inputs = num_inputs / kQuarters;
  const bool is_mlp = params.phi == PhiKind::kMlp;
  const int group = warp % kUnitGroups, split = warp / kUnitGroups;
  const int32_t unit = min(first_unit + group * 8 + lane / 4, num_units - 1);
  const W* weights = static_cast<const W*>(is_mlp ? side.fc1 : side.weight) +
                     (int64_t{kv_head} * num_units + unit) * num_inputs + split * quarter_inputs +
                     lane % 4 * kLoadInputs;

  // Phase 2: products, 256 inputs of each split at a time.
  float sums[Shape::kRows / 16][4] = {}, totals[Shape::kRows / 16][4] = {};
  const int32_t num_steps = num_inputs / Shape::kStaged;
  for (int32_t step = 0; step < num_steps; ++step) {
    uint4 loaded[kStepInputs / kBlockInputs];
#pragma unroll
    for (int i = 0; i < kStepInputs / kBlockInputs; ++i) {
      loaded[i] = *reinterpret_cast<const uint4*>(weights + step * kStepInputs + i * kBlockInputs);
    }
    if (step > 0) __syncthreads();  // the previous inputs have been read
    for (int i = warp; i < num_rows * Shape::kSplits; i += kWarps) {
      const int r = i / Shape::kSplits, s = i % Shape::kSplits;
      float x[kLoadInputs];
      LoadInputs<W>(params, side, kv_head, shared.group.sequence[r], shared.group.first_token[r],
                    s * quarter_inputs + step * kStepInputs + lane * kLoadInputs, x);
      StorePack(x, &shared.inputs[r][s * kStepInputs + lane * kLoadInputs]);
    }
    __syncthreads();
    MultiplyStep(&shared.inputs[0][split * kStepInputs], Shape::kStride, num_rows, loaded, sums);
    if (Shape::kSplits == 1 && (step + 1) * kStepInputs % quarter_inputs == 0) {
#pragma unroll
      for (int m = 0; m < Shape::kRows / 16; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          totals[m][i] += sums[m][i];
          sums[m][i] = 0;
        }
      }
    }
  }

  // Phase 3: the quarters' sum, GELU, store.
  const int64_t first_row = int64_t{blockIdx.z} * Shape::kRows;
  const auto store = [&](int row, int column, float sum) {
    if (row >= num_rows || first_unit + column >= num_units) return;
    params.units[((first_row + row) * params.num_kv_heads * 2 + blockIdx.y) * params.max_units +
                 first_unit + column] = is_mlp ? Gelu(sum) : sum;
  };
  const int column = group * 8 + lane % 4 * 2;
  if constexpr (Shape::kSplits == 1) {
#pragma unroll
    for (int m = 0; m < Shape::kRows / 16; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        store(m * 16 + lane / 4 + i / 2 * 8, column + i % 2, totals[m][i]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      shared.partials[split][lane / 4 + i / 2 * 8][column + i % 2] = sums[0][i];
    }
    __syncthreads();
    static_assert(Shape::kRows * Shape::kUnits == kThreads);
    const int row = static_cast<int>(threadIdx.x) / Shape::kUnits;
    const int c = static_cast<int>(threadIdx.x) % Shape::kUnits;
    float sum = 0;
#pragma unroll
    for (int quarter = 0; quarter < kQuarters; ++quarter) sum += shared.partials[quarter][row][c];
    store(row, c, sum);
  }
}

// True if the tensor-core kernel serves this side: whole steps in every quarter, packs within rows.
bool CanUseMma(const CompressParams& params, const CompressSide& side) {
  const int64_t num_inputs = params.shape.span_tokens * side.d;
  return num_inputs % (kQuarters * kStepInputs) == 0 && side.d % kLoadInputs == 0;
}

// ---- Any shape ----------------------------------------------------------------------------------

constexpr int kPlainRows = 16;
constexpr int kUnitsPerWarp = 4;
constexpr int kPlainUnits = kWarps * kUnitsPerWarp;
constexpr int kStagedInputs = 256;

struct PlainShared {
  float inputs[kPlainRows][kStagedInputs];
  GroupRows<kPlainRows> group;
};

// A warp has kUnitsPerWarp units, its lanes side by side along the inputs.
template <typename W>
__global__ void __launch_bounds__(kThreads) PlainUnitsKernel(CompressParams params) {
  __shared__ PlainShared shared;
  BeginDependentKernel();
  const auto kv_head = static_cast<int32_t>(blockIdx.y / 2);
  const CompressSide& side = params.sides[blockIdx.y % 2];
  const int32_t num_units = params.num_units[blockIdx.y % 2];
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int num_rows = FindGroup(params, shared.group);
  const auto first_unit = static_cast<int32_t>(blockIdx.x) * kPlainUnits;
  if (num_rows == 0 || first_unit >= num_units) return;

  const auto num_inputs = static_cast<int32_t>(params.shape.span_tokens) * side.d;
  const bool is_mlp = params.phi == PhiKind::kMlp;
  const W* weights = static_cast<const W*>(is_mlp ? side.fc1 : side.weight) +
                     int64_t{kv_head} * num_units * num_inputs;
  float sums[kUnitsPerWarp][kPlainRows] = {};
  for (int32_t first = 0; first < num_inputs; first += kStagedInputs) {
    const int32_t num_staged = min(kStagedInputs, num_inputs - first);
    __syncthreads();  // the previous inputs have been read
    for (int i = static_cast<int>(threadIdx.x); i < num_rows * kStagedInputs; i += kThreads) {
      const int r = i / kStagedInputs, input = first + i % kStagedInputs;
      if (input >= num_inputs) continue;
      const int32_t in_span = input / side.d, c = input - in_span * side.d;
      const int64_t from = ElementOf(side.raw, params.num_kv_heads, shared.group.sequence[r],
                                     kv_head, shared.group.first_token[r] + in_span, side.d);
      float x = LoadElement(side.raw.data, params.cache_dtype, from + c);
      if (side.position != nullptr) x += side.position[int64_t{kv_head} * num_inputs + input];
      shared.inputs[r][i % kStagedInputs] = x;
    }
    __syncthreads();
    for (int32_t i = lane; i < num_staged; i += kWarpThreads) {
#pragma unroll
      for (int u = 0; u < kUnitsPerWarp; ++u) {
        const int32_t unit = min(first_unit + warp * kUnitsPerWarp + u, num_units - 1);
        const float weight = ToFloat(weights[int64_t{unit} * num_inputs + first + i]);
#pragma unroll
        for (int r = 0; r < kPlainRows; ++r) {
          if (r < num_rows) sums[u][r] += weight * shared.inputs[r][i];
        }
      }
    }
  }
  const int64_t first_row = int64_t{blockIdx.z} * kPlainRows;
#pragma unroll
  for (int r = 0; r < kPlainRows; ++r) {
    if (r >= num_rows) break;
    float* out =
        params.units + ((first_row + r) * params.num_kv_heads * 2 + blockIdx.y) * params.max_units;
#pragma unroll
    for (int u = 0; u < kUnitsPerWarp; ++u) {
      const float sum = WarpReduce(sums[u][r], AddOp());
      const int32_t unit = first_unit + warp * kUnitsPerWarp + u;
      if (lane == 0 && unit < num_units) out[unit] = is_mlp ? Gelu(sum) : sum;
    }
  }
}

// ---- Launch -------------------------------------------------------------------------------------

dim3 Grid(const CompressParams& params, int64_t max_emitted, int64_t tile_units,
          int64_t group_rows) {
  return {static_cast<unsigned>(CeilDiv(params.max_units, tile_units)),
          static_cast<unsigned>(params.num_kv_heads * 2),
          static_cast<unsigned>(CeilDiv(max_emitted, group_rows))};
}

template <typename W, int kUnitGroups>
void LaunchMma(const CompressParams& params, int64_t max_emitted, const Context& context) {
  using Shape = MmaShape<kUnitGroups>;
  LaunchKernel(MmaUnitsKernel<W, kUnitGroups>,
               Grid(params, max_emitted, Shape::kUnits, Shape::kRows), kThreads, 0, context,
               params);
}

template <typename W>
void Launch(const CompressParams& params, int64_t max_emitted, const Context& context) {
  constexpr int64_t kFewRows = 64;
  if constexpr (sizeof(W) == 2) {
    if (CanUseMma(params, params.sides[0]) && CanUseMma(params, params.sides[1])) {
      return max_emitted <= kFewRows ? LaunchMma<W, 2>(params, max_emitted, context)
                                     : LaunchMma<W, 8>(params, max_emitted, context);
    }
  }
  LaunchKernel(PlainUnitsKernel<W>, Grid(params, max_emitted, kPlainUnits, kPlainRows), kThreads, 0,
               context, params);
}

}  // namespace

void LaunchCompressUnits(const CompressParams& params, DType weight_dtype, int64_t max_emitted,
                         const Context& context) {
  DispatchDevice(weight_dtype, [&]<typename W>() { Launch<W>(params, max_emitted, context); });
}

}  // namespace nsa::cuda
