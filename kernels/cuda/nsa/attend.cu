// Portable attention: a block per token and up to kTileHeads query heads of one KV head. Rows come
// in tiles of kTileRows; a warp's lanes are the rows of a tile for the scores and the softmax, its
// threads are columns for the values. fp32 throughout. Bytes: each visible K and V row once per
// kTileHeads heads and token. Deterministic, and a token's bits depend on nothing but its own
// queries and rows: tiles start at multiples of kTileRows whatever the batch.

#include "kernels/cuda/nsa/attend.h"

#include "kernels/checks.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/nsa/score_tile.cuh"

namespace nsa::cuda {
namespace {

constexpr float kLn2 = 0.69314718F;
constexpr int kMaxColumns = static_cast<int>(kMaxHeadDim) / kTileThreads;  // of d_v, per thread

template <typename T>
struct AttendParams {
  VisibleKind kind;
  NsaShape shape;
  const int32_t* sequence;  // [T]
  const int32_t* position;  // [T]
  const void* q;            // [T, H, d_k]
  DevicePagedKv<T> kv;
  const int32_t* blocks;  // [T, K, num_selected]
  void* out;              // [T, H, d_v]
  float* lse;             // [T, H]
  DType q_dtype, out_dtype;
  int32_t group_size;
  int32_t parts_per_group;  // pieces of at most kTileHeads heads
  float scale_log2;         // softmax_scale * log2(e)
};

struct Visible {
  int32_t begin = 0, end = 0;
  const int32_t* chosen = nullptr;
};

template <typename T>
__device__ Visible FindVisible(const AttendParams<T>& params, int64_t token, int32_t kv_head,
                               int32_t position) {
  const NsaShape& shape = params.shape;
  if (position < 0) return {};
  switch (params.kind) {
    case VisibleKind::kCompressed: {
      const auto first = static_cast<int32_t>(shape.row_offset());
      return {first, first + static_cast<int32_t>(shape.NumRows(position + 1))};
    }
    case VisibleKind::kWindow:
      return {max(0, position - static_cast<int32_t>(shape.window_tokens) + 1), position + 1};
    case VisibleKind::kDense:
      return {0, position + 1};
    case VisibleKind::kSelected:
      break;
  }
  // Blocks ascend, so only the last can be the token's own, which it sees up to itself.
  const auto num_selected = static_cast<int32_t>(shape.num_selected);
  const auto block_tokens = static_cast<int32_t>(shape.block_tokens);
  const int32_t* chosen = params.blocks + (token * params.kv.num_kv_heads + kv_head) * num_selected;
  int32_t num_chosen = 0;
  while (num_chosen < num_selected && chosen[num_chosen] >= 0) ++num_chosen;
  int32_t end = num_chosen * block_tokens;
  if (num_chosen > 0 && chosen[num_chosen - 1] == position / block_tokens) {
    end -= block_tokens - 1 - position % block_tokens;
  }
  return {0, end, chosen};
}

// What a softmax over the tiles so far has come to, per head, in shared memory.
struct SoftmaxState {
  float max[kTileHeads], sum[kTileHeads], rescale[kTileHeads];
};

// Turns the tile's scores into weights 2^(score - max) and updates max, sum and rescale: a warp per
// head, a lane per row.
__device__ void UpdateSoftmax(float scale_log2, int num_heads, ScoreTile& tile,
                              SoftmaxState& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  for (int head = static_cast<int>(threadIdx.x) / kWarpThreads; head < num_heads;
       head += kTileThreads / kWarpThreads) {
    const float score = tile.rows[lane] >= 0 ? tile.scores[head][lane] * scale_log2 : -INFINITY;
    const float old_max = state.max[head];
    const float max = fmaxf(old_max, WarpReduce(score, MaxOp()));
    // All scores -inf: any finite maximum gives weights 0.
    const float base = max == -INFINITY ? 0.0F : max;
    const float weight = exp2f(score - base);
    tile.scores[head][lane] = weight;
    const float sum = WarpReduce(weight, AddOp());
    __syncwarp();  // every lane has read the old maximum
    if (lane == 0) {
      const float rescale = exp2f(old_max - base);
      state.rescale[head] = rescale;
      state.max[head] = max;
      state.sum[head] = state.sum[head] * rescale + sum;
    }
    __syncwarp();
  }
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads) AttendKernel(AttendParams<T> params) {
  extern __shared__ float q[];  // [kTileHeads][d_k]
  __shared__ ScoreTile tile;
  __shared__ SoftmaxState state;
  const int64_t token = blockIdx.x;
  const auto kv_head = static_cast<int32_t>(blockIdx.y) / params.parts_per_group;
  const int32_t first = static_cast<int32_t>(blockIdx.y) % params.parts_per_group * kTileHeads;
  const int num_heads = min(kTileHeads, params.group_size - first);
  const int64_t num_heads_in_all = int64_t{params.kv.num_kv_heads} * params.group_size;
  const int64_t head_row = token * num_heads_in_all + int64_t{kv_head} * params.group_size + first;
  const Visible visible = FindVisible(params, token, kv_head, params.position[token]);
  const int64_t sequence = params.sequence[token];

  // Phase 1: queries and an empty softmax.
  if (visible.begin < visible.end) {
    LoadQueries(params.q, params.q_dtype, head_row * params.kv.d_k, num_heads * params.kv.d_k, q);
  }
  if (threadIdx.x < kTileHeads) {
    state.max[threadIdx.x] = -INFINITY;
    state.sum[threadIdx.x] = 0;
  }
  float out[kTileHeads][kMaxColumns] = {};

  // Phase 2: tile by tile.
  for (int32_t row = visible.begin / kTileRows * kTileRows; row < visible.end; row += kTileRows) {
    FindRows(params.kv, visible.chosen, sequence, kv_head, row, visible.begin, visible.end, tile);
    ScoreRows(params.kv, q, num_heads, tile);
    UpdateSoftmax(params.scale_log2, num_heads, tile, state);
    __syncthreads();  // weights and rescale of all heads are there
#pragma unroll
    for (int i = 0; i < kMaxColumns; ++i) {
      const auto c = static_cast<int32_t>(threadIdx.x) + i * kTileThreads;
      if (c >= params.kv.d_v) break;
#pragma unroll
      for (int head = 0; head < kTileHeads; ++head) {
        if (head < num_heads) out[head][i] *= state.rescale[head];
      }
      // A value that is not seen is not even multiplied by 0: it may be NaN.
      for (int r = max(0, visible.begin - row); r < min(kTileRows, visible.end - row); ++r) {
        const float value = ToFloat(params.kv.v[tile.rows[r] * params.kv.d_v + c]);
#pragma unroll
        for (int head = 0; head < kTileHeads; ++head) {
          if (head < num_heads) out[head][i] += tile.scores[head][r] * value;
        }
      }
    }
  }
  __syncthreads();

  // Phase 3: normalise and store. Nothing seen: output 0, lse -inf.
#pragma unroll
  for (int head = 0; head < kTileHeads; ++head) {
    if (head >= num_heads) break;
    const float sum = state.sum[head];
    const float inverse = sum > 0 ? 1.0F / sum : sum;
#pragma unroll
    for (int i = 0; i < kMaxColumns; ++i) {
      const auto c = static_cast<int32_t>(threadIdx.x) + i * kTileThreads;
      if (c >= params.kv.d_v) break;
      StoreElement(out[head][i] * inverse, params.out, params.out_dtype,
                   (head_row + head) * params.kv.d_v + c);
    }
    if (threadIdx.x == 0) params.lse[head_row + head] = state.max[head] * kLn2 + logf(sum);
  }
}

template <typename T>
void Launch(const AttendArgs& args, const Stream& stream) {
  const int64_t group_size = args.q.dim(1) / args.kv.num_kv_heads();
  const int64_t parts = CeilDiv(group_size, kTileHeads);
  const AttendParams<T> params{
      .kind = args.kind,
      .shape = args.shape,
      .sequence = static_cast<const int32_t*>(args.tokens.sequence.raw()),
      .position = static_cast<const int32_t*>(args.tokens.position.raw()),
      .q = args.q.raw(),
      .kv = MakeDevicePagedKv<T>(args.kv),
      .blocks = args.blocks == nullptr ? nullptr : static_cast<const int32_t*>(args.blocks->raw()),
      .out = args.out.raw(),
      .lse = static_cast<float*>(args.lse.raw()),
      .q_dtype = args.q.dtype(),
      .out_dtype = args.out.dtype(),
      .group_size = static_cast<int32_t>(group_size),
      .parts_per_group = static_cast<int32_t>(parts),
      .scale_log2 = args.softmax_scale * kLog2E};
  const dim3 grid(static_cast<unsigned>(args.tokens.num_tokens()),
                  static_cast<unsigned>(args.kv.num_kv_heads() * parts));
  const size_t shared_bytes = static_cast<size_t>(kTileHeads * args.kv.d_k()) * sizeof(float);
  AttendKernel<T><<<grid, kTileThreads, shared_bytes, stream.cuda->stream()>>>(params);
}

}  // namespace

void LaunchAttend(const AttendArgs& args, const Stream& stream) {
  if (args.tokens.num_tokens() == 0) return;
  DispatchDevice(args.kv.k.dtype(), [&]<typename T>() { Launch<T>(args, stream); });
  CheckLaunch();
}

}  // namespace nsa::cuda
