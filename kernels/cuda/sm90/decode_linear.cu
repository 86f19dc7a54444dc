// out [tokens, outputs] = x W^T for at most 64 tokens: the outputs are the M side of wgmma, the
// tokens, padded with zeros to N, the other. Bound by the bytes of W:
//
//   - Work is cut into units of a tile's outputs by 128 inputs, tile after tile. Each block gets as
//     many, one after another, whatever the shape. A tile that several blocks share is summed by
//     the one that has its first unit, in the order of the inputs; the others leave their part in
//     scratch and raise a flag.
//   - Weights depend on no other kernel: a block has as many units on their way as fit before it
//     waits for the kernels that may still run.
//
// Grid: a block per multiprocessor, fewer if there is little work. All of them run at once, as the
// flags need: a kernel behind this one starts only when they do. Block: two warpgroups that
// multiply 64 outputs each, and a warp that brings units. Shared memory: kStages units, so much
// that no two blocks share a multiprocessor; with less, some would, and others had none. fp32
// accumulation in ascending order of inputs, cut where blocks are: the cuts depend on the shape and
// the GPU alone, so a token has the same bits in any batch.

#include <algorithm>
#include <type_traits>

#include "base/check.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"
#include "kernels/cuda/ptx/flag.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/cuda/sm90/decode_linear.h"

namespace nsa::cuda {
namespace {

constexpr int kGroups = 2;  // warpgroups that multiply
constexpr int kGroupThreads = 128;
constexpr int kThreads = kGroups * kGroupThreads + 32;
constexpr int kGroupOutputs = 64;  // the M of wgmma
constexpr int kTileOutputs = kGroups * kGroupOutputs;
constexpr int kProductInputs = 16;  // the K of wgmma
constexpr int kBoxInputs = 64;      // 128 bytes of a row, the width of a swizzled box
constexpr int kBoxes = 2;           // of a unit, one behind the other
constexpr int kStepInputs = kBoxes * kBoxInputs;
constexpr int kRowBytes = kBoxInputs * 2;               // of a box
constexpr int kWeightBytes = kTileOutputs * kRowBytes;  // of a box
constexpr int kSharedBytes = 160 * 1024;
constexpr int kProcessorSharedBytes = 228 * 1024;
constexpr int kAlignment = 1024;  // of swizzled boxes
constexpr int kMinUnits = 4;      // of a block, about
constexpr int kMaxBlocks = 512;

struct Params {
  void* out;         // [num_tokens, num_outputs]
  float4* partials;  // [block][group][part of a thread's sums][thread]
  int32_t* flags;    // [block][group]: its partial is there
  int32_t num_tokens, num_outputs;
  int32_t num_steps;  // units of a tile
  int32_t num_units;  // of all tiles
};

// What the kernel is compiled for: kPaddedTokens columns.
template <typename Type, typename OutType, int kPaddedTokens>
struct Instance {
  using T = Type;
  using Out = OutType;
  static constexpr int kTokens = kPaddedTokens;
  static constexpr int kBoxBytes = kWeightBytes + kTokens * kRowBytes;  // W, then x
  static constexpr int kUnitBytes = kBoxes * kBoxBytes;
  static constexpr int kStages = kSharedBytes / kUnitBytes;
  static constexpr int kNumBytes = kStages * kUnitBytes + kAlignment;
  static constexpr int kSums = kTokens / 2;              // of a thread
  static constexpr int kPacks = kSums / 4;               // of float4
  static_assert(2 * kNumBytes > kProcessorSharedBytes);  // never two on a multiprocessor
  static_assert(kStages >= 2 && kTokens * kRowBytes % kAlignment == 0);
};

// A thread's sums of a tile: rows and columns as wgmma.cuh says.
template <typename I>
using Sums = float[I::kSums];

__device__ __forceinline__ int FirstUnit(const Params& p, int block) {
  return static_cast<int>(int64_t{p.num_units} * block / gridDim.x);
}

// The ring of units in shared memory.
template <typename I>
struct Ring {
  uint32_t units, full, empty;  // addresses; full and empty: a barrier per stage
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ uint32_t unit() const { return units + stage * I::kUnitBytes; }
  __device__ __forceinline__ uint32_t full_barrier() const { return full + stage * 8; }
  __device__ __forceinline__ uint32_t empty_barrier() const { return empty + stage * 8; }
  __device__ __forceinline__ void Advance() {
    if (++stage == I::kStages) stage = 0, parity ^= 1;
  }
};

// The thread that brings units [begin, end).
template <typename I>
__device__ __forceinline__ void BringUnits(const Params& p, const CUtensorMap& weight,
                                           const CUtensorMap& x, Ring<I> ring, int begin, int end) {
  const auto bring_weight = [&](const Ring<I>& to, int unit) {
    const int tile = unit / p.num_steps, first_input = unit % p.num_steps * kStepInputs;
    ArriveExpectBytes(to.full_barrier(), I::kUnitBytes);
#pragma unroll
    for (int box = 0; box < kBoxes; ++box) {
      LoadBox2(to.unit() + box * I::kBoxBytes, &weight, to.full_barrier(),
               first_input + box * kBoxInputs, tile * kTileOutputs);
    }
  };
  const auto bring_x = [&](const Ring<I>& to, int unit) {
    const int first_input = unit % p.num_steps * kStepInputs;
#pragma unroll
    for (int box = 0; box < kBoxes; ++box) {
      LoadBox2(to.unit() + box * I::kBoxBytes + kWeightBytes, &x, to.full_barrier(),
               first_input + box * kBoxInputs, 0);
    }
  };
  PrefetchTensorMap(&weight);
  PrefetchTensorMap(&x);
  const int num_early = min(I::kStages, end - begin);
  Ring<I> early = ring;
  for (int i = 0; i < num_early; ++i, early.Advance()) bring_weight(early, begin + i);
  WaitThenAllowFollowing();
  early = ring;
  for (int i = 0; i < num_early; ++i, early.Advance()) bring_x(early, begin + i);
  for (int unit = begin + num_early; unit < end; ++unit, ring.Advance()) {
    Wait(ring.empty_barrier(), ring.parity);
    bring_weight(ring, unit);
    bring_x(ring, unit);
  }
}

// One warpgroup's part of a tile that blocks share.
template <typename I>
struct Exchange {
  const Params& p;
  int group, thread;

  __device__ __forceinline__ float4* Partial(int block) const {
    return p.partials + (int64_t{block} * kGroups + group) * I::kPacks * kGroupThreads + thread;
  }
  __device__ __forceinline__ int32_t* Flag(int block) const {
    return p.flags + block * kGroups + group;
  }
  __device__ __forceinline__ void Sync() const {
    group == 0 ? SyncNamed(1, kGroupThreads) : SyncNamed(2, kGroupThreads);
  }

  // Leaves this block's sums to the block that has the tile's first unit.
  __device__ __forceinline__ void Publish(const Sums<I>& sums) const {
    float4* const partial = Partial(blockIdx.x);
#pragma unroll
    for (int i = 0; i < I::kPacks; ++i) {
      __stcg(partial + i * kGroupThreads,
             make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]));
    }
    __threadfence();
    Sync();
    if (thread == 0) RaiseFlag(Flag(blockIdx.x));
  }

  // Adds what the blocks after this one have of the tile that ends before unit `tile_end`, in their
  // order.
  __device__ __forceinline__ void Collect(int tile_end, Sums<I>& sums) const {
    constexpr int kBatch = 16 / I::kPacks;  // blocks whose partials are on their way
    const int first = static_cast<int>(blockIdx.x) + 1;
    int end = first;
    while (FirstUnit(p, end) < tile_end) ++end;
    for (int block = first + thread; block < end; block += kGroupThreads) TakeFlag(Flag(block));
    Sync();
#pragma unroll 1
    for (int batch = first; batch < end; batch += kBatch) {
      float4 packs[kBatch][I::kPacks];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const float4* const partial = Partial(min(batch + j, end - 1));
#pragma unroll
        for (int i = 0; i < I::kPacks; ++i) packs[j][i] = __ldcg(partial + i * kGroupThreads);
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (batch + j >= end) break;
#pragma unroll
        for (int i = 0; i < I::kPacks; ++i) {
          sums[4 * i] += packs[j][i].x, sums[4 * i + 1] += packs[j][i].y;
          sums[4 * i + 2] += packs[j][i].z, sums[4 * i + 3] += packs[j][i].w;
        }
      }
    }
  }
};

// Writes outputs [first, first + 64). Lanes of neighbouring outputs swap one of their two
// tokens, so that each writes two neighbours.
template <typename I>
__device__ __forceinline__ void Write(const Params& p, int first, int thread, const Sums<I>& sums) {
  using Out = typename I::Out;
  const int lane = thread & 31, odd = (lane >> 2) & 1;
  const int output = first + (thread >> 5) * 16 + ((lane >> 2) & ~1);
  Out* const out = static_cast<Out*>(p.out);
#pragma unroll
  for (int i = 0; i < I::kSums / 4; ++i) {
    const int token = i * 8 + (lane & 3) * 2 + odd;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float even_token = sums[4 * i + 2 * half], odd_token = sums[4 * i + 2 * half + 1];
      const float received = __shfl_xor_sync(0xffffffffu, odd != 0 ? even_token : odd_token, 4);
      const float pair[2] = {odd != 0 ? received : even_token, odd != 0 ? odd_token : received};
      const int from = output + half * 8;
      if (token < p.num_tokens && from < p.num_outputs) {
        StorePack(pair, out + int64_t{token} * p.num_outputs + from);
      }
    }
  }
}

// Adds the products of a unit to `sums`, or puts them there.
template <typename I>
__device__ __forceinline__ void MultiplyUnit(uint32_t unit, int group, bool accumulate,
                                             Sums<I>& sums) {
  FenceWgmma();
#pragma unroll
  for (int box = 0; box < kBoxes; ++box) {
    const uint32_t weight_address = unit + box * I::kBoxBytes;
    const uint64_t weight = DescribeKMajor(weight_address + group * kGroupOutputs * kRowBytes);
    const uint64_t x = DescribeKMajor(weight_address + kWeightBytes);
#pragma unroll
    for (int step = 0; step < kBoxInputs / kProductInputs; ++step) {
      Wgmma<typename I::T, I::kTokens, Layout::kKMajor>::Shared(
          sums, weight + 2 * step, x + 2 * step, accumulate || box + step > 0);
    }
  }
  CommitWgmma();
  WaitWgmma<0>();
  PinRegisters(sums);
}

// A warpgroup that multiplies units [begin, end).
template <typename I>
__device__ __forceinline__ void Multiply(const Params& p, Ring<I> ring, int begin, int end) {
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const Exchange<I> exchange{p, group, thread};
  WaitThenAllowFollowing();
  for (int unit = begin; unit < end;) {
    const int tile = unit / p.num_steps, tile_begin = tile * p.num_steps;
    const int tile_end = tile_begin + p.num_steps;
    const int piece_begin = unit, piece_end = min(end, tile_end);
    Sums<I> sums = {};
    for (; unit < piece_end; ++unit, ring.Advance()) {
      Wait(ring.full_barrier(), ring.parity);
      MultiplyUnit<I>(ring.unit(), group, /*accumulate=*/unit > piece_begin, sums);
      ArriveForWarp(thread % 32, ring.empty_barrier());
    }
    if (piece_begin > tile_begin) {
      exchange.Publish(sums);
      continue;
    }
    if (piece_end < tile_end) exchange.Collect(tile_end, sums);
    Write<I>(p, tile * kTileOutputs + group * kGroupOutputs, thread, sums);
  }
}

template <typename I>
__global__ __launch_bounds__(kThreads) void DecodeLinearKernel(
    const __grid_constant__ CUtensorMap weight, const __grid_constant__ CUtensorMap x,
    const __grid_constant__ Params p) {
  constexpr int kProducer = kGroups * kGroupThreads;
  extern __shared__ uint8_t memory[];
  __shared__ uint64_t full[I::kStages], empty[I::kStages];
  const Ring<I> ring{.units = (SharedAddress(memory) + kAlignment - 1) / kAlignment * kAlignment,
                     .full = SharedAddress(full),
                     .empty = SharedAddress(empty)};
  if (threadIdx.x == kProducer) {
    for (int i = 0; i < I::kStages; ++i) {
      InitBarrier(ring.full + i * 8, 1);
      InitBarrier(ring.empty + i * 8, kGroups * kGroupThreads / 32 * kWarpArrivals);
    }
    FenceBarrierInit();
  }
  __syncthreads();
  const int begin = FirstUnit(p, blockIdx.x), end = FirstUnit(p, blockIdx.x + 1);
  if (threadIdx.x < kProducer) {
    Multiply<I>(p, ring, begin, end);
  } else if (threadIdx.x == kProducer) {
    BringUnits<I>(p, weight, x, ring, begin, end);
  }
}

template <typename I>
void Launch(const LinearArgs& args, const Context& context) {
  static const cudaError_t kSized = cudaFuncSetAttribute(
      DecodeLinearKernel<I>, cudaFuncAttributeMaxDynamicSharedMemorySize, I::kNumBytes);
  NSA_CUDA_CHECK(kSized);
  const int64_t num_inputs = args.weight.num_inputs, num_outputs = args.weight.num_outputs;
  const auto map_of = [&](const TensorView& data, int64_t rows, uint32_t box_rows) {
    return MakeTensorMap({.data = data.raw(),
                          .bf16 = std::is_same_v<typename I::T, __nv_bfloat16>,
                          .dims = {{num_inputs, 2, kBoxInputs}, {rows, num_inputs * 2, box_rows}}});
  };
  const auto i32 = [](int64_t value) { return static_cast<int32_t>(value); };
  auto* const scratch = static_cast<uint8_t*>(context.decode_linear_scratch());
  Params params{.out = args.out.raw(),
                .partials = reinterpret_cast<float4*>(scratch + kDecodeLinearFlagBytes),
                .flags = reinterpret_cast<int32_t*>(scratch),
                .num_tokens = i32(args.x.dim(0)),
                .num_outputs = i32(num_outputs),
                .num_steps = i32(CeilDiv(num_inputs, kStepInputs)),
                .num_units = 0};
  params.num_units = i32(CeilDiv(num_outputs, kTileOutputs) * params.num_steps);
  const int64_t num_blocks =
      std::min<int64_t>({CeilDiv(params.num_units, kMinUnits), context.num_sms(), kMaxBlocks});
  LaunchKernel(DecodeLinearKernel<I>, dim3(static_cast<unsigned>(num_blocks)), kThreads,
               I::kNumBytes, context, map_of(args.weight.data, num_outputs, kTileOutputs),
               map_of(args.x, params.num_tokens, I::kTokens), params);
}

// Calls f.template operator()<Instance>().
template <typename F>
void DispatchLinear(const LinearArgs& args, F&& f) {
  const auto with_types = [&]<typename T, typename Out>() {
    const int64_t num_tokens = args.x.dim(0);
    if (num_tokens <= 16) {
      f.template operator()<Instance<T, Out, 16>>();
    } else if (num_tokens <= 32) {
      f.template operator()<Instance<T, Out, 32>>();
    } else {
      f.template operator()<Instance<T, Out, 64>>();
    }
  };
  const auto with_type = [&]<typename T>() {
    args.out.dtype() == DType::kF32 ? with_types.template operator()<T, float>()
                                    : with_types.template operator()<T, T>();
  };
  args.x.dtype() == DType::kBF16 ? with_type.template operator()<__nv_bfloat16>()
                                 : with_type.template operator()<__half>();
}

}  // namespace

bool CanRunDecodeLinear(const LinearArgs& args) {
  const auto aligned = [](const TensorView& view) {
    return reinterpret_cast<uintptr_t>(view.raw()) % 16 == 0;
  };
  const DType dtype = args.x.dtype();
  return (dtype == DType::kBF16 || dtype == DType::kF16) && args.weight.data.dtype() == dtype &&
         (args.out.dtype() == dtype || args.out.dtype() == DType::kF32) && args.x.dim(0) > 0 &&
         args.x.dim(0) <= kMaxDecodeLinearTokens && args.weight.num_inputs > 0 &&
         args.weight.num_outputs > 0 && args.weight.num_inputs % 8 == 0 &&
         args.weight.num_outputs % 8 == 0 && aligned(args.x) && aligned(args.weight.data) &&
         aligned(args.out);
}

int64_t DecodeLinearScratchBytes(int64_t num_sms) {
  return kDecodeLinearFlagBytes + std::min<int64_t>(num_sms, kMaxBlocks) * kTileOutputs *
                                      kMaxDecodeLinearTokens * int64_t{sizeof(float)};
}

void LaunchDecodeLinear(const LinearArgs& args, const Stream& stream) {
  NSA_CHECK(CanRunDecodeLinear(args)) << args.x.ToString() << " to " << args.out.ToString();
  static_assert(kMaxBlocks * kGroups * sizeof(int32_t) <= kDecodeLinearFlagBytes);
  DispatchLinear(args, [&]<typename I>() { Launch<I>(args, *stream.cuda); });
}

}  // namespace nsa::cuda
