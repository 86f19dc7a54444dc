// GatherRows and EmbedTokens: out[i] = row indices[i] of a matrix, one block per row. Bytes: each
// row once each way; bound by memory.

#include "kernels/backends.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;

// from [*, dim] to out [rows, dim]; dim is a multiple of kPack.
template <typename From, typename To, int kPack>
__global__ void __launch_bounds__(kThreads)
    GatherKernel(const From* from, const int32_t* indices, To* out, int64_t dim) {
  BeginDependentKernel();
  const int64_t row = blockIdx.x;
  from += indices[row] * dim;
  out += row * dim;
  for (int64_t c = static_cast<int64_t>(threadIdx.x) * kPack; c < dim; c += kThreads * kPack) {
    float values[kPack];
    LoadPack(from + c, values);
    StorePack(values, out + c);
  }
}

template <typename From, typename To>
void LaunchGather(const TensorView& from, const TensorView& indices, const TensorView& out,
                  const Stream& stream) {
  const int64_t num_rows = out.dim(0), dim = out.dim(1);
  if (num_rows == 0 || dim == 0) return;
  const auto launch = [&]<int kPack>() {
    LaunchKernel(GatherKernel<From, To, kPack>, static_cast<unsigned>(num_rows), kThreads, 0,
                 *stream.cuda, static_cast<const From*>(from.raw()),
                 static_cast<const int32_t*>(indices.raw()), static_cast<To*>(out.raw()), dim);
  };
  constexpr int kWide = 16 / sizeof(From);
  if (dim % kWide == 0) {
    launch.template operator()<kWide>();
  } else {
    launch.template operator()<1>();
  }
}

}  // namespace

void GatherRows(const GatherRowsArgs& args, const Stream& stream) {
  DispatchDevice(args.x.dtype(),
                 [&]<typename T>() { LaunchGather<T, T>(args.x, args.indices, args.out, stream); });
}

void EmbedTokens(const EmbedArgs& args, const Stream& stream) {
  DispatchDevice(args.weight.data.dtype(), [&]<typename T>() {
    LaunchGather<T, float>(args.weight.data, args.ids, args.out, stream);
  });
}

}  // namespace nsa::cuda
