// SwiGlu: one thread per pack of outputs. Bytes: gate_up once, out once; bound by memory.

#include "kernels/backends.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;

// gate_up [rows, 2 * dim], out [rows, dim]; dim is a multiple of kPack.
template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(const T* gate_up, T* out, int64_t dim, int64_t num_packs) {
  BeginDependentKernel();
  const int64_t pack = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack >= num_packs) return;
  const int64_t packs_per_row = dim / kPack;
  const int64_t row = pack / packs_per_row, column = (pack - row * packs_per_row) * kPack;
  float gate[kPack], up[kPack], product[kPack];
  LoadPack(gate_up + row * 2 * dim + column, gate);
  LoadPack(gate_up + (row * 2 + 1) * dim + column, up);
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    // expf overflows to inf for a very negative gate, which makes the quotient 0.
    product[i] = gate[i] / (1.0F + expf(-gate[i])) * up[i];
  }
  StorePack(product, out + row * dim + column);
}

}  // namespace

void SwiGlu(const SwiGluArgs& args, const Stream& stream) {
  const int64_t num_elements = args.out.num_elements(), dim = args.out.dim(1);
  if (num_elements == 0) return;
  DispatchDevice(args.out.dtype(), [&]<typename T>() {
    const auto launch = [&]<int kPack>() {
      const int64_t num_packs = num_elements / kPack;
      LaunchKernel(SwiGluKernel<T, kPack>, static_cast<unsigned>(CeilDiv(num_packs, kThreads)),
                   kThreads, 0, *stream.cuda, static_cast<const T*>(args.gate_up.raw()),
                   static_cast<T*>(args.out.raw()), dim, num_packs);
    };
    constexpr int kWide = 16 / sizeof(T);
    if (dim % kWide == 0) {
      launch.template operator()<kWide>();
    } else {
      launch.template operator()<1>();
    }
  });
}

}  // namespace nsa::cuda
