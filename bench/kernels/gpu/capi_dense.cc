// The engine's full attention behind plain C functions, over the tokens of a call's selected
// branch: the other two caches, gates and blocks are not read. Only enqueues work.

#include <cuda_runtime.h>

#include "base/check.h"
#include "bench/kernels/gpu/sparse_call.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/sm90/dense_attention.h"

namespace nsa {
namespace {

DenseAttentionArgs DenseArgs(const SparseAttentionArgs& args, void* lse) {
  return {.tokens = args.tokens,
          .q = args.q,
          .kv = args.sel,
          .out = args.out,
          .lse = {lse, DType::kF32, {args.q.dim(0), args.q.dim(1)}},
          .softmax_scale = args.softmax_scale};
}

}  // namespace

extern "C" {

// lse: [T, H] f32.
void nsa_dense_decode(const SparseCall* call, void* lse, void* stream) {
  const DenseAttentionArgs args = DenseArgs(ArgsOf(*call), lse);
  NSA_CHECK(cuda::CanRunDenseDecode(args)) << args.q.ToString();
  cuda::LaunchDenseDecode(args, call->num_tokens, static_cast<cudaStream_t>(stream));
}

void nsa_dense_prefill(void* context, const PrefillCall* call) {
  const auto& cuda_context = *static_cast<cuda::Context*>(context);
  const DenseAttentionArgs args = DenseArgs(ArgsOf(*call), call->cmp_lse);
  NSA_CHECK(cuda::CanRunDensePrefill(args)) << args.q.ToString();
  cuda::LaunchDensePrefill(args, cuda_context.num_sms(), cuda_context.stream());
}

}  // extern "C"

}  // namespace nsa
