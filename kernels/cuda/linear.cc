// Linear through the fast kernels that the GPU has for the operands, else through
// cuBLASLt.

#include "kernels/backends.h"
#include "kernels/cuda/arch.h"
#include "kernels/cuda/linear_plans.h"

namespace nsa::cuda {

void Linear(const LinearArgs& args, const Stream& stream) {
  if (args.x.dim(0) == 0 || args.weight.num_outputs == 0) return;
  const auto* kernel = FindLinearKernel(args, *stream.cuda);
  kernel == nullptr ? LinearThroughCublas(args, stream) : kernel->launch(args, stream);
}

}  // namespace nsa::cuda
