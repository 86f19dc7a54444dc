// CompressRows. A step's emitting tokens are numbered in the order of the step; "row e" is the
// e-th. Grids depend on the step's size alone, so that a step can be captured: blocks without a
// row exit.
//
// phi = mean, weighted_pool: one kernel, blocks over tokens, KV heads and sides (K or V).
// phi = linear, mlp: the units kernel (compress_units.cu) into scratch, then the finish kernel with
// a block per row, KV head and side: second matrix of mlp, RoPE, store.
// fp32 accumulation in an order that depends on the shape alone; deterministic.

#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/nsa/compress.cuh"
#include "kernels/cuda/nsa/emitted.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = kCompressThreads;
constexpr int kWarps = kCompressWarps;
constexpr int64_t kMaxPoolBlocks = 8192;  // over the tokens
constexpr int64_t kAlignment = 256;

// Rotates the row of d elements in shared memory if it is a key to be rotated, and stores it. All
// threads of the block call it after a barrier.
__device__ void StoreRow(const CompressParams& params, const CompressSide& side, bool is_key,
                         int64_t token, int32_t kv_head, const float* row) {
  const int32_t row_idx = RowOf(params, token);
  const int64_t to = ElementOf(side.rows, params.num_kv_heads, params.sequence[token], kv_head,
                               row_idx + static_cast<int32_t>(params.shape.row_offset()), side.d);
  const bool rotates = is_key && params.inv_freq != nullptr;
  const int32_t half = side.d / 2;
  for (auto c = static_cast<int32_t>(threadIdx.x); c < side.d; c += kThreads) {
    float value = row[c];
    if (rotates) {
      value = RotatedElement(c < half, value, row[c < half ? c + half : c - half],
                             RowAngle(params, row_idx, side.d, c));
    }
    StoreElement(value, side.rows.data, params.cache_dtype, to + c);
  }
}

constexpr int kPoolTokens = 64;  // of a span whose rows are looked up at a time

// Grid (blocks over tokens, heads and sides).
__global__ void __launch_bounds__(kThreads) PoolKernel(CompressParams params) {
  __shared__ float row[kMaxHeadDim];
  __shared__ int64_t from[kPoolTokens];
  BeginDependentKernel();
  const auto kv_head = static_cast<int32_t>(blockIdx.y / 2);
  const CompressSide& side = params.sides[blockIdx.y % 2];
  const auto span = static_cast<int32_t>(params.shape.span_tokens);
  const float* position =
      side.position == nullptr ? nullptr : side.position + int64_t{kv_head} * span * side.d;
  const float* weight = params.phi == PhiKind::kMean
                            ? nullptr
                            : static_cast<const float*>(side.weight) + int64_t{kv_head} * span;
  const auto c = static_cast<int32_t>(threadIdx.x);  // a thread per channel
  static_assert(kMaxHeadDim <= kThreads && kPoolTokens <= kThreads);
  for (int64_t token = blockIdx.x; token < params.num_tokens; token += gridDim.x) {
    if (params.positions[token] < 0 || !params.shape.CompletesSpan(params.positions[token])) {
      continue;
    }
    const int32_t first = RowOf(params, token) * static_cast<int32_t>(params.shape.span_stride);
    float sum = 0;
    for (int32_t begin = 0; begin < span; begin += kPoolTokens) {
      const int32_t num = min(kPoolTokens, span - begin);
      __syncthreads();  // the previous offsets and row have been read
      if (c < num) {
        from[c] = ElementOf(side.raw, params.num_kv_heads, params.sequence[token], kv_head,
                            first + begin + c, side.d);
      }
      __syncthreads();
      if (c >= side.d) continue;
#pragma unroll 8
      for (int32_t i = 0; i < num; ++i) {
        float x = LoadElement(side.raw.data, params.cache_dtype, from[i] + c);
        if (position != nullptr) x += position[(begin + i) * side.d + c];
        sum += weight == nullptr ? x : weight[begin + i] * x;
      }
    }
    if (c < side.d) row[c] = weight == nullptr ? sum / static_cast<float>(span) : sum;
    __syncthreads();
    StoreRow(params, side, blockIdx.y % 2 == 0, token, kv_head, row);
  }
}

// row = fc2 units, a warp per output, kOutputsAtOnce side by side.
template <typename W>
__device__ void MultiplyHidden(const W* fc2, const float* units, int32_t num_hidden, int32_t d,
                               float* row) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  for (int32_t first = warp; first < d; first += kWarps * kOutputsAtOnce) {
    const W* rows[kOutputsAtOnce];
#pragma unroll
    for (int j = 0; j < kOutputsAtOnce; ++j) {
      rows[j] = fc2 + int64_t{min(first + j * kWarps, d - 1)} * num_hidden;
    }
    float sums[kOutputsAtOnce];
    MultiplyUnits(rows, units, num_hidden, sums);
    if (threadIdx.x % kWarpThreads != 0) continue;
#pragma unroll
    for (int j = 0; j < kOutputsAtOnce; ++j) {
      if (first + j * kWarps < d) row[first + j * kWarps] = sums[j];
    }
  }
}

// Grid (heads and sides, rows).
template <typename W>
__global__ void __launch_bounds__(kThreads) FinishKernel(CompressParams params) {
  __shared__ float row[kMaxHeadDim];
  BeginDependentKernel();
  const auto kv_head = static_cast<int32_t>(blockIdx.x / 2);
  const CompressSide& side = params.sides[blockIdx.x % 2];
  const int64_t e = blockIdx.y;
  const int64_t token = params.emitted[e];
  if (token < 0) return;
  const float* units = params.units + (e * params.num_kv_heads * 2 + blockIdx.x) * params.max_units;
  if (params.phi == PhiKind::kLinear) {
    for (auto c = static_cast<int32_t>(threadIdx.x); c < side.d; c += kThreads) row[c] = units[c];
  } else {
    const int32_t num_hidden = params.num_units[blockIdx.x % 2];
    MultiplyHidden(static_cast<const W*>(side.fc2) + int64_t{kv_head} * side.d * num_hidden, units,
                   num_hidden, side.d, row);
  }
  __syncthreads();
  StoreRow(params, side, blockIdx.x % 2 == 0, token, kv_head, row);
}

SideView MakeSideView(const TensorView& data, const PagedKv& kv) {
  return {.data = data.raw(),
          .table = static_cast<const int32_t*>(kv.table.raw()),
          .table_width = static_cast<int32_t>(kv.table.dim(1)),
          .page_rows = static_cast<int32_t>(kv.page_rows())};
}

CompressSide MakeSide(const SideView& raw, const SideView& rows, const PhiWeights& phi, int64_t d) {
  return {.raw = raw,
          .rows = rows,
          .position = static_cast<const float*>(phi.position.raw()),
          .weight = phi.weight.raw(),
          .fc1 = phi.fc1.raw(),
          .fc2 = phi.fc2.raw(),
          .d = static_cast<int32_t>(d)};
}

bool HasUnits(PhiKind phi) { return phi == PhiKind::kLinear || phi == PhiKind::kMlp; }

// Where the parts of the scratch lie.
struct ScratchPlan {
  int64_t units_offset;
  int64_t num_bytes;
};
ScratchPlan PlanScratch(int64_t max_emitted, int64_t num_kv_heads, int64_t max_units) {
  const int64_t num_rows = CeilDiv(max_emitted, kMaxUnitsRows) * kMaxUnitsRows;
  const int64_t list_bytes = num_rows * int64_t{sizeof(int32_t)};
  const int64_t units_offset = CeilDiv(list_bytes, kAlignment) * kAlignment;
  const int64_t unit_bytes = num_rows * num_kv_heads * 2 * max_units * int64_t{sizeof(float)};
  return {.units_offset = units_offset, .num_bytes = units_offset + unit_bytes};
}

void RunUnits(const CompressArgs& args, CompressParams params, const Stream& stream) {
  const DType dtype = UnitMatrix(args.phi, args.phi_k).dtype();
  NSA_CHECK(UnitMatrix(args.phi, args.phi_v).dtype() == dtype) << DTypeName(dtype);
  const int64_t max_emitted = MaxEmitted(args.shape, params.num_tokens, args.raw.table.dim(0));
  if (max_emitted == 0) return;
  const ScratchPlan plan = PlanScratch(max_emitted, params.num_kv_heads, params.max_units);
  NSA_CHECK_LE(plan.num_bytes, args.scratch.num_bytes());
  NSA_CHECK_LE(max_emitted, kMaxGridY);
  char* scratch = static_cast<char*>(args.scratch.raw());
  params.emitted = reinterpret_cast<int32_t*>(scratch);
  params.units = reinterpret_cast<float*>(scratch + plan.units_offset);
  LaunchCompressUnits(params, dtype, max_emitted, *stream.cuda);
  const dim3 grid(static_cast<unsigned>(params.num_kv_heads * 2),
                  static_cast<unsigned>(max_emitted));
  DispatchDevice(dtype, [&]<typename W>() {
    LaunchKernel(FinishKernel<W>, grid, kThreads, 0, *stream.cuda, params);
  });
}

}  // namespace

CompressParams MakeCompressParams(const CompressArgs& args) {
  const auto side = [&](const TensorView& raw, const TensorView& rows, const PhiWeights& phi) {
    return MakeSide(MakeSideView(raw, args.raw), MakeSideView(rows, args.rows), phi, raw.dim(3));
  };
  CompressParams params{.shape = args.shape,
                        .phi = args.phi,
                        .sides = {side(args.raw.k, args.rows.k, args.phi_k),
                                  side(args.raw.v, args.rows.v, args.phi_v)},
                        .sequence = static_cast<const int32_t*>(args.tokens.sequence.raw()),
                        .positions = static_cast<const int32_t*>(args.tokens.position.raw()),
                        .num_tokens = args.tokens.num_tokens(),
                        .inv_freq = args.rope == CmpRope::kAfter
                                        ? static_cast<const float*>(args.inv_freq.raw())
                                        : nullptr,
                        .cache_dtype = args.raw.k.dtype(),
                        .num_kv_heads = static_cast<int32_t>(args.raw.num_kv_heads())};
  if (HasUnits(args.phi)) {
    params.num_units[0] = static_cast<int32_t>(UnitMatrix(args.phi, args.phi_k).dim(1));
    params.num_units[1] = static_cast<int32_t>(UnitMatrix(args.phi, args.phi_v).dim(1));
    params.max_units = std::max(params.num_units[0], params.num_units[1]);
  }
  return params;
}

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
  const CompressParams params = MakeCompressParams(args);
  if (HasUnits(args.phi)) {
    RunUnits(args, params, stream);
  } else {
    const dim3 grid(static_cast<unsigned>(std::min(params.num_tokens, kMaxPoolBlocks)),
                    static_cast<unsigned>(params.num_kv_heads * 2));
    LaunchKernel(PoolKernel, grid, kThreads, 0, *stream.cuda, params);
  }
}

}  // namespace nsa::cuda
