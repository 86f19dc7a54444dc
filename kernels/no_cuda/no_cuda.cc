// The CUDA backend of a build without CUDA: every operation ends the process with its name.

#include "kernels/backends.h"

namespace nsa::cuda {
namespace {

[[noreturn]] void FailWithoutCuda(const char* function) {
  CheckFailure(__FILE__, __LINE__, function).stream()
      << "was called with a CUDA stream, but this build has no CUDA";
  __builtin_unreachable();
}

}  // namespace

#define NSA_DEFINE_OP(Function, Args) \
  void Function(const Args&, const Stream&) { FailWithoutCuda(#Function); }
NSA_BACKEND_OPS(NSA_DEFINE_OP)
#undef NSA_DEFINE_OP

int64_t CompressRowsScratchBytes(const CompressExtent&, const Stream&) {
  FailWithoutCuda("CompressRowsScratchBytes");
}

int64_t SparseAttentionScratchBytes(const SparseAttentionExtent&, const Stream&) {
  FailWithoutCuda("SparseAttentionScratchBytes");
}

}  // namespace nsa::cuda
