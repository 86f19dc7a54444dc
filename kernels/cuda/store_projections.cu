// StoreProjections: a block per token and share of its heads, a thread per pack of a head. Bytes:
// the packed row once, q, K and V once; bound by memory.

#include "kernels/cuda/store_projections.cuh"

#include "kernels/backends.h"

namespace nsa::cuda {
namespace {

template <typename T, typename Cache, int kPack>
__global__ void __launch_bounds__(kStoreThreads)
    StoreProjectionsKernel(StoreParams<T, Cache> params) {
  StoreToken<kPack>(params, blockIdx.x, static_cast<int32_t>(blockIdx.y),
                    static_cast<int32_t>(gridDim.y));
}

template <typename T, typename Cache, int kPack>
void Launch(const StoreProjectionsArgs& args, const Stream& stream) {
  const int64_t shares = NumStoreShares(args, kPack, 2 * stream.cuda->num_sms());
  const dim3 grid(static_cast<unsigned>(args.tokens.num_tokens()), static_cast<unsigned>(shares));
  LaunchKernel(StoreProjectionsKernel<T, Cache, kPack>, grid, kStoreThreads, 0, *stream.cuda,
               MakeStoreParams<T, Cache>(args));
}

}  // namespace

void StoreProjections(const StoreProjectionsArgs& args, const Stream& stream) {
  if (args.tokens.num_tokens() == 0) return;
  constexpr int kWide = 8;
  DispatchDevice(args.packed.dtype(), [&]<typename T>() {
    DispatchDevice(args.streams[0].kv.k.dtype(), [&]<typename Cache>() {
      if (CanPackStores(args, kWide)) {
        Launch<T, Cache, kWide>(args, stream);
      } else {
        Launch<T, Cache, 1>(args, stream);
      }
    });
  });
}

}  // namespace nsa::cuda
