#include "kernels/cuda/arch.h"

#include <algorithm>
#include <span>

namespace nsa::cuda {
namespace {

// First the fastest.
constexpr std::span<const SparseKernel> kDecodeKernels;
constexpr std::span<const SparseKernel> kPrefillKernels;

bool HasKernel(const SparseKernel& kernel, const Context& context) {
  return context.compute_capability() >= kernel.min_capability &&
         context.compute_capability() <= kernel.max_capability;
}

const SparseKernel* Find(std::span<const SparseKernel> kernels, const SparseAttentionArgs& args,
                         const Context& context) {
  const auto found = std::find_if(kernels.begin(), kernels.end(), [&](const SparseKernel& kernel) {
    return HasKernel(kernel, context) && kernel.can_run(args);
  });
  return found == kernels.end() ? nullptr : &*found;
}

}  // namespace

const SparseKernel* FindDecodeKernel(const SparseAttentionArgs& args, const Context& context) {
  return Find(kDecodeKernels, args, context);
}

const SparseKernel* FindPrefillKernel(const SparseAttentionArgs& args, const Context& context) {
  return Find(kPrefillKernels, args, context);
}

int64_t FastScratchBytes(const SparseAttentionExtent& extent, const Context& context) {
  int64_t num_bytes = 0;
  for (const auto& kernels : {kDecodeKernels, kPrefillKernels}) {
    for (const SparseKernel& kernel : kernels) {
      if (!HasKernel(kernel, context) || kernel.scratch_bytes == nullptr) continue;
      num_bytes = std::max(num_bytes, kernel.scratch_bytes(extent));
    }
  }
  return num_bytes;
}

}  // namespace nsa::cuda
