// Times Linear of few tokens on Hopper: the kernel that reads weights ahead (sm90/decode_linear)
// and cuBLASLt, with the norm before each product as in a layer; graphs over weights that do not
// fit the L2. Compares both results first.
//   linear_bench [--json=FILE]

#include <cuda_bf16.h>

#include <cstdio>

#include "bench/kernels/cuda/gpu_bench.cuh"
#include "kernels/backends.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/linear_plans.h"
#include "kernels/cuda/sm90/decode_linear.h"

namespace nsa {
namespace {

constexpr int kCopies = 6;  // of a weight, in turn
using Multiply = void (*)(const LinearArgs&, const Stream&);

struct Shape {
  const char* name;
  int64_t num_outputs, num_inputs;
};
constexpr Shape kShapes[] = {
    {"qkv", 11456, 4096}, {"o", 4096, 8192}, {"gate and up", 24576, 4096}, {"down", 4096, 12288}};

__global__ void LargestDifference(const __nv_bfloat16* a, const __nv_bfloat16* b, int64_t num,
                                  float* largest) {
  for (int64_t i = threadIdx.x; i < num; i += blockDim.x) {
    const float d = fabsf(__bfloat162float(a[i]) - __bfloat162float(b[i]));
    atomicMax(reinterpret_cast<int*>(largest), __float_as_int(d == d ? d : INFINITY));
  }
}

class Bench : public GpuBench {
 public:
  using GpuBench::GpuBench;

  void Run(const Shape& shape, int64_t num_tokens) {
    const int64_t weight_bytes = shape.num_outputs * shape.num_inputs * 2;
    const Buffer weights(weight_bytes * kCopies), x(num_tokens * shape.num_inputs * 2);
    const Buffer residual(num_tokens * shape.num_inputs * 4), norm(shape.num_inputs * 4);
    const Buffer out(num_tokens * shape.num_outputs * 2),
        expected(num_tokens * shape.num_outputs * 2);
    constexpr int kFinite = 0x3f;  // four such bytes are 0.75
    CUDA_OK(cudaMemset(residual.get(), kFinite, num_tokens * shape.num_inputs * 4));
    CUDA_OK(cudaMemset(norm.get(), kFinite, shape.num_inputs * 4));
    Fill<__nv_bfloat16>(weights.get(), weight_bytes / 2 * kCopies, 0.02F, 1);
    Fill<__nv_bfloat16>(x.get(), num_tokens * shape.num_inputs, 1, 2);
    const auto args = [&](int copy, const Buffer& to) {
      return LinearArgs{.x = Bf16(x, num_tokens, shape.num_inputs),
                        .weight = WeightOf(shape, weights, copy),
                        .out = Bf16(to, num_tokens, shape.num_outputs)};
    };
    for (int i = 0; i < 3; ++i) cuda::LaunchDecodeLinear(args(0, out), stream_);
    cuda::LinearThroughCublas(args(0, expected), stream_);
    const float difference = Difference(out, expected, num_tokens * shape.num_outputs);

    const auto us_of = [&](Multiply multiply, bool with_norm) {
      return GraphUs(context_.stream(),
                     [&] {
                       for (int i = 0; i < 2 * kCopies; ++i) {
                         if (with_norm) {
                           cuda::AddRmsNorm(
                               {.x = {residual.get(), DType::kF32, {num_tokens, shape.num_inputs}},
                                .y = {},
                                .weight = {norm.get(), DType::kF32, {shape.num_inputs}},
                                .out = {x.get(), DType::kBF16, {num_tokens, shape.num_inputs}},
                                .epsilon = 1e-5F},
                               stream_);
                         }
                         multiply(args(i % kCopies, out), stream_);
                       }
                     }) /
             (2 * kCopies);
    };
    const double ours = us_of(cuda::LaunchDecodeLinear, false);
    const double cublas = us_of(cuda::LinearThroughCublas, false);
    const double ours_norm = us_of(cuda::LaunchDecodeLinear, true);
    const double cublas_norm = us_of(cuda::LinearThroughCublas, true);
    const double floor = static_cast<double>(weight_bytes) / read_bytes_per_us_;
    std::printf(
        "%-12s %3ld tokens: %6.1f us (%3.0f %% of read), cuBLASLt %6.1f (%3.0f %%); with the norm "
        "before %6.1f, %6.1f; differ by %.4f\n",
        shape.name, num_tokens, ours, 100 * floor / ours, cublas, 100 * floor / cublas, ours_norm,
        cublas_norm, difference);
    std::fflush(stdout);
    results_.Add({{"product", shape.name},
                  {"bytes", weight_bytes},
                  {"tokens", num_tokens},
                  {"us", ours},
                  {"cublas_us", cublas},
                  {"after_norm_us", ours_norm},
                  {"cublas_after_norm_us", cublas_norm},
                  {"largest_difference", difference}});
  }

 private:
  static TensorView Bf16(const Buffer& buffer, int64_t rows, int64_t columns) {
    return {buffer.get(), DType::kBF16, {rows, columns}};
  }
  static PackedWeight WeightOf(const Shape& shape, const Buffer& weights, int copy) {
    return {shape.num_outputs,
            shape.num_inputs,
            {static_cast<char*>(weights.get()) + shape.num_outputs * shape.num_inputs * 2 * copy,
             DType::kBF16,
             {shape.num_outputs, shape.num_inputs}}};
  }
  // The largest, after all that has been enqueued.
  float Difference(const Buffer& a, const Buffer& b, int64_t num) {
    const Buffer largest(4);
    CUDA_OK(cudaMemsetAsync(largest.get(), 0, 4, context_.stream()));
    LargestDifference<<<1, 1024, 0, context_.stream()>>>(static_cast<const __nv_bfloat16*>(a.get()),
                                                         static_cast<const __nv_bfloat16*>(b.get()),
                                                         num, static_cast<float*>(largest.get()));
    CUDA_OK(cudaStreamSynchronize(context_.stream()));
    return largest.Read<float>()[0];
  }
};

}  // namespace
}  // namespace nsa

int main(int argc, char** argv) {
  nsa::Results results(argc, argv);
  nsa::Bench bench(results);
  constexpr int64_t kTokens[] = {1, 8, 16, 24, 32, 48, 64};
  for (const nsa::Shape& shape : nsa::kShapes) {
    for (const int64_t num_tokens : kTokens) bench.Run(shape, num_tokens);
  }
  results.Write(bench.read_bytes_per_us());
}
