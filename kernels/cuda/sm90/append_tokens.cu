// One launch writes what a decode step adds to a layer's caches. Its first blocks store the tokens
// (store_projections.cuh). A cluster of the others emits the compressed rows of one KV head's keys
// or values, if tokens complete spans: its blocks have 16 units of phi each at a time, exchange
// them, and then have a share of the row's elements each. The newest raw row comes from the
// projections, so that nothing here waits for the stores.
//
// Latency is all that counts: usually no token completes a span, then the emitting blocks leave at
// once; or a few do. Weights and older raw rows, of up to kMaxRowsAtOnce emitted rows, are on their
// way before the kernels in front have ended.
//
// Grid: clusters of 8 blocks, those that store, then for each part of the emitted rows those of
// every KV head's keys and values. Block: 256 threads; shared memory: a cluster's inputs and units,
// so much that two blocks share a multiprocessor. Bytes: phi's weights once per part of the rows
// that has any, a row's inputs once per block of a cluster, and what is stored. fp32 sums in the
// order of compress_units.cu, to the bit, whatever the batch.

#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/nsa/compress_mma.cuh"
#include "kernels/cuda/nsa/emitted.cuh"
#include "kernels/cuda/ptx/cluster.cuh"
#include "kernels/cuda/ptx/prefetch.cuh"
#include "kernels/cuda/sm90/append_tokens.h"
#include "kernels/cuda/store_projections.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = kStoreThreads;
static_assert(kThreads == kCompressThreads);
constexpr int kWarps = kThreads / kWarpThreads;
constexpr int kPack = kLoadInputs;  // elements that a thread moves at once

constexpr int kClusterBlocks = 8;
constexpr int kTileUnits = 16;  // of a block, at a time: two groups of 8 for its warps
constexpr int kTileRows = 16;   // the M side of the products
// Emitted at a time by a cluster: so many inputs of 32 tokens of 128 elements leave room for a
// second block on the multiprocessor.
constexpr int kMaxRowsAtOnce = 12;
constexpr int kStepsAhead = 2;  // of weights, in registers

template <typename T>
struct AppendParams {
  StoreParams<T, T> store;
  CompressParams compress;
  int32_t num_store_blocks, num_shares, num_store_clusters;
  int32_t raw_stream;    // of `store`, which `compress` reads
  int32_t rows_at_once;  // of a cluster; at most kMaxRowsAtOnce
  int32_t num_parts;     // clusters that share the emitted rows of one head's keys or values
};

// The plan of a block's dynamic shared memory, bytes.
struct EmitLayout {
  int64_t row_elements;  // of staged inputs
  int64_t inputs, offsets, hidden, outputs, angles, num_bytes;

  __host__ __device__ EmitLayout(const CompressParams& params, int32_t rows_at_once) {
    const int64_t max_d =
        params.sides[0].d > params.sides[1].d ? params.sides[0].d : params.sides[1].d;
    row_elements = params.shape.span_tokens * max_d + kRowPadding;
    inputs = 0;
    offsets = inputs + rows_at_once * row_elements * 2;
    hidden = offsets + rows_at_once * params.shape.span_tokens * int64_t{sizeof(int64_t)};
    outputs = hidden + int64_t{rows_at_once} * params.max_units * int64_t{sizeof(float)};
    angles = outputs + rows_at_once * max_d / kClusterBlocks * int64_t{sizeof(float)};
    num_bytes = angles + rows_at_once * max_d / kClusterBlocks / 2 * int64_t{sizeof(SinCos)};
  }
};

struct EmitShared {
  float partials[kQuarters][kTileRows][kTileUnits];
  int32_t tokens[kMaxRowsAtOnce];
  int32_t row_idx[kMaxRowsAtOnce];
  int32_t warp_counts[kMaxWarps];
};

// Of a block's dynamic shared memory, so that there is room for two on a multiprocessor.
constexpr int kMaxSharedBytes = 113 * 1024 - static_cast<int>(sizeof(EmitShared)) - kMaxHeadDim * 4;

// One cluster's work on one head's keys or values.
template <typename T>
class Emitter {
 public:
  __device__ __forceinline__ Emitter(const AppendParams<T>& params, int32_t head_side,
                                     uint8_t* memory, EmitShared& shared)
      : params_(params),
        shared_(shared),
        side_(params.compress.sides[head_side % 2]),
        layout_(params.compress, params.rows_at_once),
        inputs_(reinterpret_cast<T*>(memory + layout_.inputs)),
        offsets_(reinterpret_cast<int64_t*>(memory + layout_.offsets)),
        hidden_(reinterpret_cast<float*>(memory + layout_.hidden)),
        outputs_(reinterpret_cast<float*>(memory + layout_.outputs)),
        angles_(reinterpret_cast<SinCos*>(memory + layout_.angles)),
        rank_(static_cast<int>(ClusterRank())),
        kv_head_(head_side / 2),
        is_key_(head_side % 2 == 0),
        num_units_(params.compress.num_units[head_side % 2]),
        num_inputs_(static_cast<int32_t>(params.compress.shape.span_tokens) * side_.d),
        num_outputs_(side_.d / kClusterBlocks) {}

  // The step's emitted rows number batch * rows_at_once ...; false if there are none, which all
  // blocks of the cluster find out.
  __device__ __forceinline__ bool Emit(int64_t batch) {
    const CompressParams& compress = params_.compress;
    num_rows_ = FindEmitted(compress.shape, compress.positions, compress.num_tokens,
                            batch * params_.rows_at_once, params_.rows_at_once, shared_.tokens,
                            shared_.warp_counts);
    if (num_rows_ == 0) return false;
    const auto first_unit = static_cast<int32_t>(rank_ * kTileUnits);
    const bool has_units = first_unit < num_units_;
    uint4 loaded[kStepsAhead][kStepInputs / kBlockInputs];
    if (has_units) {
#pragma unroll
      for (int step = 0; step < kStepsAhead; ++step) LoadWeights(first_unit, step, loaded[step]);
      PrefetchWeights(first_unit);
    }
    FindInputs();
    ClusterArrive();  // the units before have been read
    __syncthreads();
    if (has_units) BeginInputs();
    FindOutputs();
    WaitForPrecedingKernels();
    if (has_units) FinishInputs();
    __syncthreads();
    ClusterWait();
#pragma unroll 1
    for (int32_t unit = first_unit; unit < num_units_; unit += kClusterBlocks * kTileUnits) {
      if (unit != first_unit) {
#pragma unroll
        for (int step = 0; step < kStepsAhead; ++step) LoadWeights(unit, step, loaded[step]);
      }
      SendUnits(unit, loaded);
    }
    ClusterArrive();
    ClusterWait();
    MakeOutputs();
    __syncthreads();
    StoreOutputs();
    return true;
  }

 private:
  // Four warps share the quarters of 8 units' inputs.
  static __device__ __forceinline__ int Quarter() { return Warp() / 2; }
  static __device__ __forceinline__ int Warp() {
    return static_cast<int>(threadIdx.x) / kWarpThreads;
  }
  static __device__ __forceinline__ int Lane() {
    return static_cast<int>(threadIdx.x) % kWarpThreads;
  }
  __device__ __forceinline__ int32_t quarter_inputs() const { return num_inputs_ / kQuarters; }

  // The first weight of a unit's quarter.
  __device__ __forceinline__ const T* QuarterWeights(int32_t unit) const {
    const bool is_mlp = params_.compress.phi == PhiKind::kMlp;
    return static_cast<const T*>(is_mlp ? side_.fc1 : side_.weight) +
           (int64_t{kv_head_} * num_units_ + min(unit, num_units_ - 1)) * num_inputs_ +
           Quarter() * quarter_inputs();
  }
  // This lane's weights of step `step` of its warp's quarter.
  __device__ __forceinline__ void LoadWeights(int32_t first_unit, int32_t step,
                                              uint4 (&to)[kStepInputs / kBlockInputs]) const {
    if (step * kStepInputs >= quarter_inputs()) return;
    const T* const from = QuarterWeights(first_unit + Warp() % 2 * 8 + Lane() / 4) +
                          step * kStepInputs + Lane() % 4 * kLoadInputs;
#pragma unroll
    for (int i = 0; i < kStepInputs / kBlockInputs; ++i) {
      to[i] = *reinterpret_cast<const uint4*>(from + i * kBlockInputs);
    }
  }

  // Those of the steps behind the first ones, into the L2.
  __device__ __forceinline__ void PrefetchWeights(int32_t first_unit) const {
    constexpr int32_t kLoaded = kStepsAhead * kStepInputs;
    if (Lane() >= 8 || quarter_inputs() <= kLoaded) return;
    PrefetchBulk(QuarterWeights(first_unit + Warp() % 2 * 8 + Lane()) + kLoaded,
                 static_cast<uint32_t>(quarter_inputs() - kLoaded) * 2);
  }

  // Where the raw rows lie.
  __device__ __forceinline__ void FindInputs() const {
    const CompressParams& compress = params_.compress;
    const auto span = static_cast<int32_t>(compress.shape.span_tokens);
#pragma unroll 1
    for (auto i = static_cast<int32_t>(threadIdx.x); i < num_rows_ * span; i += kThreads) {
      const int32_t row = i / span, in_span = i - row * span, token = shared_.tokens[row];
      const int32_t row_idx = RowOf(compress, token);
      if (in_span == 0) shared_.row_idx[row] = row_idx;
      offsets_[i] =
          ElementOf(side_.raw, compress.num_kv_heads, compress.sequence[token], kv_head_,
                    row_idx * static_cast<int32_t>(compress.shape.span_stride) + in_span, side_.d);
    }
  }

  // The angles of this block's elements; and their weights, brought near.
  __device__ __forceinline__ void FindOutputs() const {
    const CompressParams& compress = params_.compress;
    const int32_t num_angles = rotates() ? num_rows_ * num_outputs_ / 2 : 0;
#pragma unroll 1
    for (auto i = static_cast<int32_t>(threadIdx.x); i < num_angles; i += kThreads) {
      const int32_t row = i / (num_outputs_ / 2), output = i - row * (num_outputs_ / 2);
      angles_[i] = RowAngle(compress, shared_.row_idx[row], side_.d, ElementOfOutput(output));
    }
    if (compress.phi != PhiKind::kMlp) return;
    constexpr int32_t kLineBytes = 128;
    const int32_t row_lines = (num_units_ * 2 + kLineBytes - 1) / kLineBytes;
#pragma unroll 1
    for (auto i = static_cast<int32_t>(threadIdx.x); i < num_outputs_ * row_lines; i += kThreads) {
      const auto* const row = reinterpret_cast<const char*>(OutputWeights(i / row_lines));
      PrefetchGlobal(row + i % row_lines * kLineBytes);
    }
  }
  __device__ __forceinline__ bool rotates() const {
    return is_key_ && params_.compress.inv_freq != nullptr;
  }

  // This head's columns of a token's raw row, which other blocks are storing.
  __device__ __forceinline__ const T* Newest(int32_t token) const {
    const StoreStream<T>& stream = params_.store.streams[params_.raw_stream];
    return params_.store.packed + token * params_.store.num_columns +
           (is_key_ ? stream.k_column : stream.v_column) + kv_head_ * side_.d;
  }
  // Its element c as the cache will have it, where raw keys are rotated.
  __device__ __forceinline__ float RotatedNewest(int32_t token, int32_t c) const {
    const int32_t half = side_.d / 2;
    const bool is_low = c < half;
    const T* const head = Newest(token);
    const SinCos angle =
        RotationAt(params_.store.position[token], params_.store.inv_freq[is_low ? c : c - half]);
    return ToFloat(FromFloat<T>(RotatedElement(
        is_low, ToFloat(head[c]), ToFloat(head[is_low ? c + half : c - half]), angle)));
  }

  // Starts to copy the raw rows of earlier steps to where the inputs belong.
  __device__ __forceinline__ void BeginInputs() const {
    const auto span = static_cast<int32_t>(params_.compress.shape.span_tokens);
    const T* const raw = static_cast<const T*>(side_.raw.data);
#pragma unroll 1
    for (auto input = static_cast<int32_t>(threadIdx.x) * kPack; input < num_inputs_;
         input += kThreads * kPack) {
      const int32_t in_span = input / side_.d, c = input - in_span * side_.d;
      if (side_.position != nullptr) PrefetchGlobal(PositionOf(input));
      if (in_span == span - 1) continue;
#pragma unroll 2
      for (int row = 0; row < num_rows_; ++row) {
        CopyAsync16(SharedAddress(InputOf(row, input)), raw + offsets_[row * span + in_span] + c,
                    true);
      }
    }
    CommitCopies();
  }
  // Adds the newest rows and the position encodings, every thread where it has copied.
  __device__ __forceinline__ void FinishInputs() const {
    const auto span = static_cast<int32_t>(params_.compress.shape.span_tokens);
    const bool rotates_raw = is_key_ && params_.store.streams[params_.raw_stream].rotate_k;
    WaitForCopies<0>();
#pragma unroll 1
    for (auto input = static_cast<int32_t>(threadIdx.x) * kPack; input < num_inputs_;
         input += kThreads * kPack) {
      const int32_t in_span = input / side_.d, c = input - in_span * side_.d;
      const bool is_newest = in_span == span - 1;
      if (is_newest && rotates_raw) {
#pragma unroll 1
        for (int i = 0; i < num_rows_ * kPack; ++i) {
          const int row = i / kPack, in_pack = i % kPack;
          const float position = side_.position == nullptr ? 0 : PositionOf(input)[in_pack];
          InputOf(row, input)[in_pack] =
              FromFloat<T>(RotatedNewest(shared_.tokens[row], c + in_pack) + position);
        }
      } else if (is_newest || side_.position != nullptr) {
        float position[kPack] = {};
        if (side_.position != nullptr) LoadPack(PositionOf(input), position);
#pragma unroll 2
        for (int row = 0; row < num_rows_; ++row) {
          float x[kPack];
          LoadPack(is_newest ? Newest(shared_.tokens[row]) + c : InputOf(row, input), x);
#pragma unroll
          for (int i = 0; i < kPack; ++i) x[i] += position[i];
          StorePack(x, InputOf(row, input));
        }
      }
    }
  }
  __device__ __forceinline__ T* InputOf(int row, int32_t input) const {
    return inputs_ + row * layout_.row_elements + input;
  }
  __device__ __forceinline__ const float* PositionOf(int32_t input) const {
    return side_.position + int64_t{kv_head_} * num_inputs_ + input;
  }

  // Units first_unit ... of this block, to all blocks of the cluster.
  __device__ __forceinline__ void SendUnits(
      int32_t first_unit, uint4 (&loaded)[kStepsAhead][kStepInputs / kBlockInputs]) const {
    float sums[1][4] = {};
    const int32_t num_steps = quarter_inputs() / kStepInputs;
#pragma unroll 1
    for (int32_t base = 0; base < num_steps; base += kStepsAhead) {
#pragma unroll
      for (int i = 0; i < kStepsAhead; ++i) {
        const int32_t step = base + i;
        if (step >= num_steps) break;
        MultiplyStep(inputs_ + Quarter() * quarter_inputs() + step * kStepInputs,
                     static_cast<int>(layout_.row_elements), num_rows_, loaded[i], sums);
        LoadWeights(first_unit, step + kStepsAhead, loaded[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      shared_.partials[Quarter()][Lane() / 4 + i / 2 * 8][Warp() % 2 * 8 + Lane() % 4 * 2 + i % 2] =
          sums[0][i];
    }
    __syncthreads();
    static_assert(kTileRows * kTileUnits == kThreads);
    const int row = static_cast<int>(threadIdx.x) / kTileUnits;
    const int column = static_cast<int>(threadIdx.x) % kTileUnits;
    if (row < num_rows_ && first_unit + column < num_units_) {
      float sum = 0;
#pragma unroll
      for (int quarter = 0; quarter < kQuarters; ++quarter) {
        sum += shared_.partials[quarter][row][column];
      }
      if (params_.compress.phi == PhiKind::kMlp) sum = Gelu(sum);
      const uint32_t place =
          SharedAddress(hidden_ + row * params_.compress.max_units + first_unit + column);
#pragma unroll
      for (int peer = 0; peer < kClusterBlocks; ++peer) {
        StorePeer(PeerAddress(place, static_cast<uint32_t>(peer)), sum);
      }
    }
    __syncthreads();  // the partial sums have been read
  }

  // Of a row this block has the same share of both halves, which are rotated together: output o is
  // element ElementOfOutput(o).
  __device__ __forceinline__ int32_t ElementOfOutput(int32_t output) const {
    const int32_t in_half = num_outputs_ / 2;
    return output < in_half ? rank_ * in_half + output
                            : side_.d / 2 + rank_ * in_half + output - in_half;
  }
  __device__ __forceinline__ const T* OutputWeights(int32_t output) const {
    return static_cast<const T*>(side_.fc2) +
           (int64_t{kv_head_} * side_.d + ElementOfOutput(output)) * num_units_;
  }

  __device__ __forceinline__ void MakeOutputs() const {
    if (params_.compress.phi != PhiKind::kMlp) {
#pragma unroll 1
      for (auto i = static_cast<int32_t>(threadIdx.x); i < num_rows_ * num_outputs_;
           i += kThreads) {
        const int32_t row = i / num_outputs_;
        outputs_[i] =
            hidden_[row * params_.compress.max_units + ElementOfOutput(i - row * num_outputs_)];
      }
      return;
    }
    const int32_t num_parts = (num_outputs_ + kOutputsAtOnce - 1) / kOutputsAtOnce;
#pragma unroll 1
    for (int32_t i = Warp(); i < num_rows_ * num_parts; i += kWarps) {
      const int32_t row = i / num_parts, first = (i - row * num_parts) * kOutputsAtOnce;
      const T* weights[kOutputsAtOnce];
#pragma unroll
      for (int j = 0; j < kOutputsAtOnce; ++j) {
        weights[j] = OutputWeights(min(first + j, num_outputs_ - 1));
      }
      float sums[kOutputsAtOnce];
      MultiplyUnits(weights, hidden_ + row * params_.compress.max_units, num_units_, sums);
      if (Lane() != 0) continue;
#pragma unroll
      for (int j = 0; j < kOutputsAtOnce; ++j) {
        if (first + j < num_outputs_) outputs_[row * num_outputs_ + first + j] = sums[j];
      }
    }
  }

  __device__ __forceinline__ void StoreOutputs() const {
    const CompressParams& compress = params_.compress;
    const int32_t half = num_outputs_ / 2;
#pragma unroll 1
    for (auto i = static_cast<int32_t>(threadIdx.x); i < num_rows_ * num_outputs_; i += kThreads) {
      const int32_t row = i / num_outputs_, output = i - row * num_outputs_;
      const int32_t c = ElementOfOutput(output), row_idx = shared_.row_idx[row];
      float value = outputs_[i];
      if (rotates()) {
        const bool is_low = output < half;
        value = RotatedElement(is_low, value, outputs_[is_low ? i + half : i - half],
                               angles_[row * half + (is_low ? output : output - half)]);
      }
      const int64_t to =
          ElementOf(side_.rows, compress.num_kv_heads, compress.sequence[shared_.tokens[row]],
                    kv_head_, row_idx + static_cast<int32_t>(compress.shape.row_offset()), side_.d);
      static_cast<T*>(side_.rows.data)[to + c] = FromFloat<T>(value);
    }
  }

  const AppendParams<T>& params_;
  EmitShared& shared_;
  const CompressSide& side_;
  const EmitLayout layout_;
  T* const inputs_;         // [row][layout_.row_elements]
  int64_t* const offsets_;  // [row][span_tokens], of the raw rows' elements
  float* const hidden_;     // [row][max_units], of the whole cluster
  float* const outputs_;    // [row][num_outputs_]
  SinCos* const angles_;    // [row][num_outputs_ / 2]
  const int rank_;
  const int32_t kv_head_;
  const bool is_key_;
  const int32_t num_units_, num_inputs_, num_outputs_;
  int num_rows_ = 0;
};

template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    AppendTokensKernel(const __grid_constant__ AppendParams<T> params) {
  extern __shared__ __align__(16) uint8_t memory[];
  __shared__ EmitShared shared;
  const auto block = static_cast<int32_t>(blockIdx.x);
  if (block < params.num_store_clusters * kClusterBlocks) {
    if (block >= params.num_store_blocks) return;
    StoreToken<kPack>(params.store, block / params.num_shares, block % params.num_shares,
                      params.num_shares);
    return;
  }
  AllowFollowingKernel();
  const int32_t num_head_sides = params.compress.num_kv_heads * 2;
  const int32_t cluster = block / kClusterBlocks - params.num_store_clusters;
  Emitter<T> emitter(params, cluster % num_head_sides, memory, shared);
  // Blocks that emit nothing do not wait: those that store do, and the launch ends with them.
  for (int64_t batch = cluster / num_head_sides; emitter.Emit(batch); batch += params.num_parts) {
  }
}

int64_t MaxRows(const CompressArgs& args) {
  return MaxEmitted(args.shape, args.tokens.num_tokens(), args.raw.table.dim(0));
}

// As many rows as have room. One has: its inputs take 64 KiB at most, its units and the places of
// its raw rows 16 KiB each.
static_assert(kMaxSpanElements * 2 <= 64 << 10 && kMaxPhiHidden * 4 <= 16 << 10);
int32_t RowsAtOnce(const CompressParams& params, int64_t max_rows) {
  auto rows = static_cast<int32_t>(std::clamp<int64_t>(max_rows, 1, kMaxRowsAtOnce));
  while (rows > 1 && EmitLayout(params, rows).num_bytes > kMaxSharedBytes) --rows;
  return rows;
}

template <typename T>
void Launch(const AppendArgs& args, const Context& context) {
  const CompressParams compress = MakeCompressParams(args.compress);
  const int64_t num_tokens = args.store.tokens.num_tokens(), max_rows = MaxRows(args.compress);
  const int64_t num_head_sides = int64_t{compress.num_kv_heads} * 2;
  // Blocks that store leave room for those that emit.
  const int64_t num_shares = NumStoreShares(args.store, kPack, context.num_sms() / 2);
  AppendParams<T> params{.store = MakeStoreParams<T, T>(args.store),
                         .compress = compress,
                         .num_store_blocks = static_cast<int32_t>(num_tokens * num_shares),
                         .num_shares = static_cast<int32_t>(num_shares),
                         .raw_stream = static_cast<int32_t>(RawStream(args)),
                         .rows_at_once = RowsAtOnce(compress, max_rows)};
  params.num_store_clusters =
      static_cast<int32_t>(CeilDiv(params.num_store_blocks, kClusterBlocks));
  // Where all clusters run at once: of the places for two blocks on a multiprocessor they find
  // three quarters, as their blocks lie close together.
  const int64_t max_parts = 2 * context.num_sms() * 3 / 4 / (num_head_sides * kClusterBlocks);
  params.num_parts = static_cast<int32_t>(std::clamp<int64_t>(
      CeilDiv(max_rows, params.rows_at_once), 1, std::max<int64_t>(max_parts, 1)));
  const auto num_bytes = static_cast<int>(EmitLayout(compress, params.rows_at_once).num_bytes);
  static const cudaError_t allowed = cudaFuncSetAttribute(
      AppendTokensKernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxSharedBytes);
  NSA_CUDA_CHECK(allowed);
  cudaLaunchAttribute attributes[kMaxEarlyAttributes + 1]{};
  const unsigned num_early = SetEarlyAttributes(attributes);
  attributes[num_early].id = cudaLaunchAttributeClusterDimension;
  attributes[num_early].val.clusterDim = {kClusterBlocks, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(
      (params.num_store_clusters + params.num_parts * num_head_sides) * kClusterBlocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(num_bytes);
  config.stream = context.stream();
  config.attrs = attributes;
  config.numAttrs = num_early + 1;
  NSA_CUDA_CHECK(cudaLaunchKernelEx(&config, AppendTokensKernel<T>, params));
}

bool HasTypes(const AppendArgs& args, DType dtype) {
  const CompressArgs& compress = args.compress;
  for (const PhiWeights* phi : {&compress.phi_k, &compress.phi_v}) {
    if (UnitMatrix(compress.phi, *phi).dtype() != dtype) return false;
    if (compress.phi == PhiKind::kMlp && phi->fc2.dtype() != dtype) return false;
  }
  return args.store.packed.dtype() == dtype && args.store.streams[0].kv.k.dtype() == dtype;
}

}  // namespace

bool CanAppendTokens(const AppendArgs& args) {
  const CompressArgs& compress = args.compress;
  const int64_t num_tokens = args.store.tokens.num_tokens();
  if (num_tokens > kMaxAppendTokens || args.store.tokens.num_decode_tokens != num_tokens ||
      (compress.phi != PhiKind::kLinear && compress.phi != PhiKind::kMlp) ||
      (!HasTypes(args, DType::kBF16) && !HasTypes(args, DType::kF16)) ||
      !CanPackStores(args.store, kPack)) {
    return false;
  }
  for (const int64_t d : {compress.raw.d_k(), compress.raw.d_v()}) {
    if (d % (2 * kClusterBlocks) != 0 ||
        compress.shape.span_tokens * d % (kQuarters * kStepInputs) != 0) {
      return false;
    }
  }
  return true;
}

void LaunchAppendTokens(const AppendArgs& args, const Stream& stream) {
  NSA_CHECK(CanAppendTokens(args)) << args.store.packed.ToString();
  if (args.store.tokens.num_tokens() == 0) return;
  DispatchDevice(args.store.packed.dtype(), [&]<typename T>() {
    if constexpr (sizeof(T) == 2) Launch<T>(args, *stream.cuda);
  });
}

}  // namespace nsa::cuda
