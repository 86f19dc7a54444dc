#include "kernels/backends.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;

// A thread per token; a few bytes each.
__global__ void TakePendingTokensKernel(int32_t* ids, const int32_t* sampled, int num_tokens) {
  BeginDependentKernel();
  const int t = blockIdx.x * kThreads + threadIdx.x;
  if (t >= num_tokens || ids[t] >= 0) return;
  ids[t] = sampled[-1 - ids[t]];
}

}  // namespace

void TakePendingTokens(const PendingTokensArgs& args, const Stream& stream) {
  const int num_tokens = static_cast<int>(args.ids.dim(0));
  if (num_tokens == 0) return;
  const int num_blocks = static_cast<int>(CeilDiv(num_tokens, kThreads));
  LaunchKernel(TakePendingTokensKernel, static_cast<unsigned>(num_blocks), kThreads, 0,
               *stream.cuda, args.ids.data<int32_t>(), args.sampled.data<int32_t>(), num_tokens);
}

}  // namespace nsa::cuda
