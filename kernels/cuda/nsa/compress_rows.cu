// CompressRows. A step's emitting tokens are numbered in the order of the step; "row e" is the
// e-th. Grids depend on the step's size alone, so that a step can be captured: blocks without a
// row exit.
//
// phi = mean, weighted_pool: one kernel, a block per token, KV head and side (K or V).
// phi = linear, mlp: two kernels over scratch.
//   units   grid (unit tiles, heads and sides, groups of kGroupRows rows): inputs are staged in
//           shared memory for the group's rows and multiplied with the tile's weights, which are so
//           read once per group. Units are the hidden ones of mlp, the outputs of linear.
//   finish  grid (heads and sides, rows): second matrix of mlp, RoPE, store.
// fp32 accumulation in an order that depends on the shape alone; deterministic. Bound by the
// weights' bytes in decode, by fp32 arithmetic in prefill.

#include <algorithm>

#include "kernels/backends.h"
#include "kernels/checks.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/device/paged_rows.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/rotation.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/nsa/emitted.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpThreads;
constexpr int kGroupRows = 16;
constexpr int kUnitsPerWarp = 4;
constexpr int kTileUnits = kWarps * kUnitsPerWarp;
constexpr int kPack = 4;                  // inputs of one load
constexpr int kStagedInputs = 512;        // per row, at a time
constexpr int64_t kMaxPoolBlocks = 1024;  // over the tokens
constexpr int64_t kAlignment = 256;

// One side of a cache, K or V, of either cache.
struct SideView {
  char* data;  // [pages, K, page_rows, d]
  const int32_t* table;
  int32_t table_width, page_rows;
};

struct Side {
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
  Side sides[2];             // K, V
  const int32_t* sequence;   // [T]
  const int32_t* positions;  // [T]
  int64_t num_tokens;
  const float* inv_freq;  // [d_k / 2], null: no rotation
  DType cache_dtype;
  int32_t num_kv_heads;
  int32_t num_units[2];  // of a side, at most max_units
  int32_t max_units;
  int32_t* emitted;  // [max rows, rounded up to kGroupRows] token of row e, or -1
  float* units;      // [max rows, num_kv_heads, 2, max_units]
};

// Index, among a side's elements, of the first element of row `row` of a sequence.
__device__ __forceinline__ int64_t ElementOf(const SideView& view, const CompressParams& params,
                                             int64_t token, int32_t kv_head, int64_t row,
                                             int32_t d) {
  const int64_t logical = row / view.page_rows;
  const int64_t page =
      view.table[params.sequence[token] * int64_t{view.table_width} + logical % view.table_width];
  return ((page * params.num_kv_heads + kv_head) * view.page_rows + row % view.page_rows) * d;
}

__device__ __forceinline__ int64_t RowOf(const CompressParams& params, int64_t token) {
  return params.shape.NumRows(params.positions[token] + 1) - 1;
}

// Rotates the row of d elements in shared memory if it is a key to be rotated, and stores it. All
// threads of the block call it after a barrier.
__device__ void StoreRow(const CompressParams& params, const Side& side, bool is_key, int64_t token,
                         int32_t kv_head, const float* row) {
  const int64_t row_idx = RowOf(params, token);
  const int64_t to =
      ElementOf(side.rows, params, token, kv_head, row_idx + params.shape.row_offset(), side.d);
  const bool rotates = is_key && params.inv_freq != nullptr;
  const int32_t half = side.d / 2;
  const auto first_token = static_cast<int32_t>(row_idx * params.shape.span_stride);
  for (auto c = static_cast<int32_t>(threadIdx.x); c < side.d; c += kThreads) {
    float value = row[c];
    if (rotates) {
      const bool is_low = c < half;
      const SinCos angle = RotationAt(first_token, params.inv_freq[is_low ? c : c - half]);
      value = is_low ? row[c] * angle.cos - row[c + half] * angle.sin
                     : row[c] * angle.cos + row[c - half] * angle.sin;
    }
    StoreElement(value, side.rows.data, params.cache_dtype, to + c);
  }
}

// Grid (blocks over tokens, heads and sides).
__global__ void __launch_bounds__(kThreads) PoolKernel(CompressParams params) {
  __shared__ float row[kMaxHeadDim];
  const auto kv_head = static_cast<int32_t>(blockIdx.y / 2);
  const bool is_key = blockIdx.y % 2 == 0;
  const Side& side = params.sides[blockIdx.y % 2];
  const auto span = static_cast<int32_t>(params.shape.span_tokens);
  const float* position =
      side.position == nullptr ? nullptr : side.position + int64_t{kv_head} * span * side.d;
  const float* weight = params.phi == PhiKind::kMean
                            ? nullptr
                            : static_cast<const float*>(side.weight) + int64_t{kv_head} * span;
  for (int64_t token = blockIdx.x; token < params.num_tokens; token += gridDim.x) {
    if (params.positions[token] < 0 || !params.shape.CompletesSpan(params.positions[token])) {
      continue;
    }
    const int64_t first = RowOf(params, token) * params.shape.span_stride;
    for (auto c = static_cast<int32_t>(threadIdx.x); c < side.d; c += kThreads) {
      float sum = 0;
      for (int32_t i = 0; i < span; ++i) {
        const int64_t from = ElementOf(side.raw, params, token, kv_head, first + i, side.d);
        float x = LoadElement(side.raw.data, params.cache_dtype, from + c);
        if (position != nullptr) x += position[i * side.d + c];
        sum += weight == nullptr ? x : weight[i] * x;
      }
      row[c] = weight == nullptr ? sum / static_cast<float>(span) : sum;
    }
    __syncthreads();
    StoreRow(params, side, is_key, token, kv_head, row);
    __syncthreads();  // the row has been read
  }
}

__device__ __forceinline__ float Gelu(float x) {
  constexpr float kSqrtHalf = 0.70710678F;
  return 0.5F * x * (1.0F + erff(x * kSqrtHalf));
}

struct UnitsShared {
  float inputs[kGroupRows][kStagedInputs];
  int32_t tokens[kGroupRows];
  int32_t warp_counts[kMaxWarps];
};

// Stages inputs [first, first + kStagedInputs) of the group's rows, 0 beyond num_inputs.
__device__ void StageInputs(const CompressParams& params, const Side& side, int32_t kv_head,
                            int num_rows, int32_t first, int32_t num_inputs, UnitsShared& shared) {
  for (int r = 0; r < num_rows; ++r) {
    const int64_t token = shared.tokens[r];
    const int64_t first_token = RowOf(params, token) * params.shape.span_stride;
    for (auto i = static_cast<int32_t>(threadIdx.x); i < kStagedInputs; i += kThreads) {
      const int32_t input = first + i;
      float x = 0;
      if (input < num_inputs) {
        const int32_t in_span = input / side.d, c = input - in_span * side.d;
        const int64_t from =
            ElementOf(side.raw, params, token, kv_head, first_token + in_span, side.d);
        x = LoadElement(side.raw.data, params.cache_dtype, from + c);
        if (side.position != nullptr) {
          x += side.position[int64_t{kv_head} * num_inputs + input];
        }
      }
      shared.inputs[r][i] = x;
    }
  }
}

// Weights of one unit, kPack inputs from `input` on; 0 beyond num_inputs.
template <typename W>
__device__ __forceinline__ void LoadWeights(const W* unit, int32_t input, int32_t num_inputs,
                                            float (&weights)[kPack]) {
  if (num_inputs % kPack == 0) {
    if (input < num_inputs) {
      LoadPack(unit + input, weights);
    } else {
#pragma unroll
      for (float& weight : weights) weight = 0;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    weights[i] = input + i < num_inputs ? ToFloat(unit[input + i]) : 0.0F;
  }
}

template <typename W>
__global__ void __launch_bounds__(kThreads) UnitsKernel(CompressParams params) {
  __shared__ UnitsShared shared;
  const auto kv_head = static_cast<int32_t>(blockIdx.y / 2);
  const Side& side = params.sides[blockIdx.y % 2];
  const int32_t num_units = params.num_units[blockIdx.y % 2];
  const int64_t first_row = int64_t{blockIdx.z} * kGroupRows;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;

  // Phase 1: the group's rows; one block of the group leaves them for the next kernel.
  const int num_rows = FindEmitted(params.shape, params.positions, params.num_tokens, first_row,
                                   kGroupRows, shared.tokens, shared.warp_counts);
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x < kGroupRows) {
    const auto r = static_cast<int>(threadIdx.x);
    params.emitted[first_row + r] = r < num_rows ? shared.tokens[r] : -1;
  }
  const auto first_unit = static_cast<int32_t>(blockIdx.x) * kTileUnits;
  if (num_rows == 0 || first_unit >= num_units) return;

  // Phase 2: products, a warp per kUnitsPerWarp units, its lanes side by side along the inputs.
  const auto num_inputs = static_cast<int32_t>(params.shape.span_tokens) * side.d;
  const bool is_mlp = params.phi == PhiKind::kMlp;
  const W* weights = static_cast<const W*>(is_mlp ? side.fc1 : side.weight) +
                     int64_t{kv_head} * num_units * num_inputs;
  const W* unit_weights[kUnitsPerWarp];
#pragma unroll
  for (int u = 0; u < kUnitsPerWarp; ++u) {
    // A warp beyond the last unit repeats it; the result is not stored.
    const int32_t unit = min(first_unit + warp * kUnitsPerWarp + u, num_units - 1);
    unit_weights[u] = weights + int64_t{unit} * num_inputs;
  }
  float sums[kUnitsPerWarp][kGroupRows] = {};
  for (int32_t first = 0; first < num_inputs; first += kStagedInputs) {
    __syncthreads();  // the previous inputs have been read
    StageInputs(params, side, kv_head, num_rows, first, num_inputs, shared);
    __syncthreads();
#pragma unroll
    for (int32_t i = lane * kPack; i < kStagedInputs; i += kWarpThreads * kPack) {
      float w[kUnitsPerWarp][kPack];
#pragma unroll
      for (int u = 0; u < kUnitsPerWarp; ++u) {
        LoadWeights(unit_weights[u], first + i, num_inputs, w[u]);
      }
#pragma unroll
      for (int r = 0; r < kGroupRows; ++r) {
        if (r >= num_rows) break;
        const float4 x = *reinterpret_cast<const float4*>(&shared.inputs[r][i]);
#pragma unroll
        for (int u = 0; u < kUnitsPerWarp; ++u) {
          sums[u][r] += w[u][0] * x.x + w[u][1] * x.y + w[u][2] * x.z + w[u][3] * x.w;
        }
      }
    }
  }

  // Phase 3: sums over the lanes, GELU, store.
#pragma unroll
  for (int r = 0; r < kGroupRows; ++r) {
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

template <typename W>
__global__ void __launch_bounds__(kThreads) FinishKernel(CompressParams params) {
  __shared__ float row[kMaxHeadDim];
  const auto kv_head = static_cast<int32_t>(blockIdx.x / 2);
  const bool is_key = blockIdx.x % 2 == 0;
  const Side& side = params.sides[blockIdx.x % 2];
  const int64_t e = blockIdx.y;
  const int64_t token = params.emitted[e];
  if (token < 0) return;
  const float* units = params.units + (e * params.num_kv_heads * 2 + blockIdx.x) * params.max_units;
  if (params.phi == PhiKind::kLinear) {
    for (auto c = static_cast<int32_t>(threadIdx.x); c < side.d; c += kThreads) row[c] = units[c];
  } else {
    const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
    const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
    const int32_t num_hidden = params.num_units[blockIdx.x % 2];
    const W* fc2 = static_cast<const W*>(side.fc2) + int64_t{kv_head} * side.d * num_hidden;
    for (int32_t c = warp; c < side.d; c += kWarps) {
      float sum = 0;
      for (int32_t i = lane; i < num_hidden; i += kWarpThreads) {
        sum += ToFloat(fc2[int64_t{c} * num_hidden + i]) * units[i];
      }
      sum = WarpReduce(sum, AddOp());
      if (lane == 0) row[c] = sum;
    }
  }
  __syncthreads();
  StoreRow(params, side, is_key, token, kv_head, row);
}

SideView MakeSideView(const TensorView& data, const PagedKv& kv) {
  return {.data = static_cast<char*>(data.raw()),
          .table = static_cast<const int32_t*>(kv.table.raw()),
          .table_width = static_cast<int32_t>(kv.table.dim(1)),
          .page_rows = static_cast<int32_t>(kv.page_rows())};
}

Side MakeSide(const SideView& raw, const SideView& rows, const PhiWeights& phi, int64_t d) {
  return {.raw = raw,
          .rows = rows,
          .position = static_cast<const float*>(phi.position.raw()),
          .weight = phi.weight.raw(),
          .fc1 = phi.fc1.raw(),
          .fc2 = phi.fc2.raw(),
          .d = static_cast<int32_t>(d)};
}

CompressParams MakeParams(const CompressArgs& args) {
  return {.shape = args.shape,
          .phi = args.phi,
          .sides = {MakeSide(MakeSideView(args.raw.k, args.raw),
                             MakeSideView(args.rows.k, args.rows), args.phi_k, args.raw.d_k()),
                    MakeSide(MakeSideView(args.raw.v, args.raw),
                             MakeSideView(args.rows.v, args.rows), args.phi_v, args.raw.d_v())},
          .sequence = static_cast<const int32_t*>(args.tokens.sequence.raw()),
          .positions = static_cast<const int32_t*>(args.tokens.position.raw()),
          .num_tokens = args.tokens.num_tokens(),
          .inv_freq = args.rope == CmpRope::kAfter ? static_cast<const float*>(args.inv_freq.raw())
                                                   : nullptr,
          .cache_dtype = args.raw.k.dtype(),
          .num_kv_heads = static_cast<int32_t>(args.raw.num_kv_heads())};
}

bool HasUnits(PhiKind phi) { return phi == PhiKind::kLinear || phi == PhiKind::kMlp; }

// Where the parts of the scratch lie.
struct ScratchPlan {
  int64_t num_rows;  // rounded up to whole groups
  int64_t units_offset;
  int64_t num_bytes;
};
ScratchPlan PlanScratch(int64_t max_emitted, int64_t num_kv_heads, int64_t max_units) {
  ScratchPlan plan{.num_rows = CeilDiv(max_emitted, kGroupRows) * kGroupRows};
  plan.units_offset = CeilDiv(plan.num_rows * int64_t{sizeof(int32_t)}, kAlignment) * kAlignment;
  plan.num_bytes =
      plan.units_offset + plan.num_rows * num_kv_heads * 2 * max_units * int64_t{sizeof(float)};
  return plan;
}

void LaunchUnits(const CompressArgs& args, CompressParams params, const Stream& stream) {
  const bool is_mlp = args.phi == PhiKind::kMlp;
  const TensorView &k_weight = is_mlp ? args.phi_k.fc1 : args.phi_k.weight,
                   &v_weight = is_mlp ? args.phi_v.fc1 : args.phi_v.weight;
  params.num_units[0] = static_cast<int32_t>(k_weight.dim(1));
  params.num_units[1] = static_cast<int32_t>(v_weight.dim(1));
  params.max_units = std::max(params.num_units[0], params.num_units[1]);
  const int64_t max_emitted = MaxEmitted(args.shape, params.num_tokens, args.raw.table.dim(0));
  if (max_emitted == 0) return;
  const ScratchPlan plan = PlanScratch(max_emitted, params.num_kv_heads, params.max_units);
  NSA_CHECK_LE(plan.num_bytes, args.scratch.num_bytes());
  NSA_CHECK_LE(max_emitted, kMaxGridY);
  char* scratch = static_cast<char*>(args.scratch.raw());
  params.emitted = reinterpret_cast<int32_t*>(scratch);
  params.units = reinterpret_cast<float*>(scratch + plan.units_offset);
  const auto heads_and_sides = static_cast<unsigned>(params.num_kv_heads * 2);
  const dim3 units_grid(static_cast<unsigned>(CeilDiv(params.max_units, kTileUnits)),
                        heads_and_sides, static_cast<unsigned>(plan.num_rows / kGroupRows));
  const dim3 finish_grid(heads_and_sides, static_cast<unsigned>(max_emitted));
  DispatchDevice(k_weight.dtype(), [&]<typename W>() {
    UnitsKernel<W><<<units_grid, kThreads, 0, stream.cuda->stream()>>>(params);
    CheckLaunch();
    FinishKernel<W><<<finish_grid, kThreads, 0, stream.cuda->stream()>>>(params);
  });
}

}  // namespace

int64_t CompressRowsScratchBytes(const CompressExtent& extent, const Stream& /*stream*/) {
  if (!HasUnits(extent.phi)) return 0;
  const int64_t max_units =
      extent.phi == PhiKind::kMlp ? extent.num_hidden : std::max(extent.d_k, extent.d_v);
  return PlanScratch(MaxEmitted(extent.shape, extent.num_tokens, extent.num_seqs),
                     extent.num_kv_heads, max_units)
      .num_bytes;
}

void CompressRows(const CompressArgs& args, const Stream& stream) {
  if (args.tokens.num_tokens() == 0) return;
  const CompressParams params = MakeParams(args);
  if (HasUnits(args.phi)) {
    LaunchUnits(args, params, stream);
  } else {
    const dim3 grid(static_cast<unsigned>(std::min(params.num_tokens, kMaxPoolBlocks)),
                    static_cast<unsigned>(params.num_kv_heads * 2));
    PoolKernel<<<grid, kThreads, 0, stream.cuda->stream()>>>(params);
  }
  CheckLaunch();
}

}  // namespace nsa::cuda
