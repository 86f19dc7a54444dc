// AppendTokens: in one launch where the GPU has a kernel for it, else its two operations.

#include "kernels/backends.h"
#include "kernels/cuda/arch.h"

namespace nsa::cuda {

void AppendTokens(const AppendArgs& args, const Stream& stream) {
  if (const auto* kernel = FindAppendKernel(args, *stream.cuda); kernel != nullptr) {
    return kernel->launch(args, stream);
  }
  cuda::StoreProjections(args.store, stream);
  cuda::CompressRows(args.compress, stream);
}

}  // namespace nsa::cuda
