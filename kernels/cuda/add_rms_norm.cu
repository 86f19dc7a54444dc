// AddRmsNorm: one block per row. Bytes: x, y and out once each way (of rows of more than kThreads *
// kMaxPacks packs, x is read again from L1); bound by memory, and for few rows by its latency, so a
// thread has all its loads in flight at once. Deterministic: a row's order of addition depends on
// its length alone.

#include "kernels/backends.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxPacks = 4;  // of a row that one thread keeps in registers

template <typename T>
struct NormParams {
  float* x;             // [rows, dim]
  const T* y;           // [rows, dim], or null
  const float* weight;  // [dim]
  T* out;               // [rows, dim]
  int64_t dim;
  float epsilon;
};

template <int kPack>
__device__ __forceinline__ float SumOfSquares(const float (&x)[kPack]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPack; ++i) sum += x[i] * x[i];
  return sum;
}

// x += y, if there is a y, also in memory.
template <typename T, int kPack>
__device__ __forceinline__ void AddPack(const NormParams<T>& params, int64_t index,
                                        const float (&y)[kPack], float (&x)[kPack]) {
  if (params.y == nullptr) return;
#pragma unroll
  for (int i = 0; i < kPack; ++i) x[i] += y[i];
  StorePack(x, params.x + index);
}

template <typename T, int kPack>
__device__ __forceinline__ void StoreScaled(const float (&x)[kPack], float scale,
                                            const float (&weight)[kPack], T* out) {
  float scaled[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) scaled[i] = x[i] * scale * weight[i];
  StorePack(scaled, out);
}

template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) AddRmsNormKernel(NormParams<T> params) {
  __shared__ float shared[kMaxWarps];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * params.dim;
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kPack;
  constexpr int64_t kStride = int64_t{kThreads} * kPack;
  constexpr int64_t kKept = kStride * kMaxPacks;  // columns of a row kept in registers
  const auto for_kept = [&](auto&& visit) {
#pragma unroll
    for (int i = 0; i < kMaxPacks; ++i) {
      if (const int64_t column = first + i * kStride; column < params.dim) visit(i, column);
    }
  };

  // Phase 1: loads. The weights depend on no other kernel.
  float weight[kMaxPacks][kPack], x[kMaxPacks][kPack], y[kMaxPacks][kPack] = {};
  for_kept([&](int i, int64_t column) { LoadPack(params.weight + column, weight[i]); });
  BeginDependentKernel();
  for_kept([&](int i, int64_t column) {
    LoadPack(params.x + row + column, x[i]);
    if (params.y != nullptr) LoadPack(params.y + row + column, y[i]);
  });

  // Phase 2: the sum, and the sum of its squares.
  float sum = 0;
  for_kept([&](int i, int64_t column) {
    AddPack(params, row + column, y[i], x[i]);
    sum += SumOfSquares(x[i]);
  });
  for (int64_t column = first + kKept; column < params.dim; column += kStride) {
    float far_x[kPack], far_y[kPack] = {};
    LoadPack(params.x + row + column, far_x);
    if (params.y != nullptr) LoadPack(params.y + row + column, far_y);
    AddPack(params, row + column, far_y, far_x);
    sum += SumOfSquares(far_x);
  }
  // The barrier inside also ends the reading of y, which out may overwrite.
  const float mean = BlockReduce(sum, AddOp(), shared) / static_cast<float>(params.dim);
  const float scale = 1.0F / sqrtf(mean + params.epsilon);

  // Phase 3: the scaled row.
  for_kept([&](int i, int64_t column) {
    StoreScaled(x[i], scale, weight[i], params.out + row + column);
  });
  for (int64_t column = first + kKept; column < params.dim; column += kStride) {
    float far_x[kPack], far_weight[kPack];
    LoadPack(params.x + row + column, far_x);
    LoadPack(params.weight + column, far_weight);
    StoreScaled(far_x, scale, far_weight, params.out + row + column);
  }
}

}  // namespace

void AddRmsNorm(const AddRmsNormArgs& args, const Stream& stream) {
  if (args.x.dim(0) == 0 || args.x.dim(1) == 0) return;
  DispatchDevice(args.out.dtype(), [&]<typename T>() {
    const NormParams<T> params{.x = static_cast<float*>(args.x.raw()),
                               .y = static_cast<const T*>(args.y.raw()),
                               .weight = static_cast<const float*>(args.weight.raw()),
                               .out = static_cast<T*>(args.out.raw()),
                               .dim = args.x.dim(1),
                               .epsilon = args.epsilon};
    const auto launch = [&]<int kPack>() {
      LaunchKernel(AddRmsNormKernel<T, kPack>, static_cast<unsigned>(args.x.dim(0)), kThreads, 0,
                   *stream.cuda, params);
    };
    if (params.dim % 4 == 0) {
      launch.template operator()<4>();
    } else {
      launch.template operator()<1>();
    }
  });
}

}  // namespace nsa::cuda
