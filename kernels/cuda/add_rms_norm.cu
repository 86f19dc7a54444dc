// AddRmsNorm: one block per row. Bytes: x, y and out once each way (x is read again from L1 only
// where a row has more than kThreads * kMaxPacks packs); bound by memory. Deterministic: a row's
// order of addition depends on its length alone.

#include "kernels/backends.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/launch.h"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxPacks = 8;  // of a row that one thread keeps in registers

template <typename T>
struct NormParams {
  float* x;             // [rows, dim]
  const T* y;           // [rows, dim], or null
  const float* weight;  // [dim]
  T* out;               // [rows, dim]
  int64_t dim;
  float epsilon;
};

// Loads a pack of x, adds y's and stores the sum.
template <typename T, int kPack>
__device__ __forceinline__ void AddPack(const NormParams<T>& params, int64_t index,
                                        float (&x)[kPack]) {
  LoadPack(params.x + index, x);
  if (params.y == nullptr) return;
  float y[kPack];
  LoadPack(params.y + index, y);
#pragma unroll
  for (int i = 0; i < kPack; ++i) x[i] += y[i];
  StorePack(x, params.x + index);
}

template <typename T, int kPack>
__device__ __forceinline__ void NormPack(const NormParams<T>& params, const float (&x)[kPack],
                                         float scale, int64_t index, int64_t column) {
  float weight[kPack], out[kPack];
  LoadPack(params.weight + column, weight);
#pragma unroll
  for (int i = 0; i < kPack; ++i) out[i] = x[i] * scale * weight[i];
  StorePack(out, params.out + index);
}

template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) AddRmsNormKernel(NormParams<T> params) {
  __shared__ float shared[kMaxWarps];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * params.dim;
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kPack;
  constexpr int64_t kStride = int64_t{kThreads} * kPack;
  constexpr int64_t kKept = kStride * kMaxPacks;  // columns of a row kept in registers

  // Phase 1: the sum, and the sum of its squares.
  float kept[kMaxPacks][kPack];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kMaxPacks; ++i) {
    const int64_t column = first + i * kStride;
    if (column >= params.dim) break;
    AddPack(params, row + column, kept[i]);
#pragma unroll
    for (int j = 0; j < kPack; ++j) sum += kept[i][j] * kept[i][j];
  }
  for (int64_t column = first + kKept; column < params.dim; column += kStride) {
    float x[kPack];
    AddPack(params, row + column, x);
#pragma unroll
    for (int j = 0; j < kPack; ++j) sum += x[j] * x[j];
  }
  // The barrier inside also ends the reading of y, which out may overwrite.
  const float mean = BlockReduce(sum, AddOp(), shared) / static_cast<float>(params.dim);
  const float scale = 1.0F / sqrtf(mean + params.epsilon);

  // Phase 2: the scaled row.
#pragma unroll
  for (int i = 0; i < kMaxPacks; ++i) {
    const int64_t column = first + i * kStride;
    if (column >= params.dim) break;
    NormPack(params, kept[i], scale, row + column, column);
  }
  for (int64_t column = first + kKept; column < params.dim; column += kStride) {
    float x[kPack];
    LoadPack(params.x + row + column, x);
    NormPack(params, x, scale, row + column, column);
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
      AddRmsNormKernel<T, kPack>
          <<<static_cast<unsigned>(args.x.dim(0)), kThreads, 0, stream.cuda->stream()>>>(params);
    };
    if (params.dim % 4 == 0) {
      launch.template operator()<4>();
    } else {
      launch.template operator()<1>();
    }
  });
  CheckLaunch();
}

}  // namespace nsa::cuda
