// Linear through cuBLASLt.

#include <bit>
#include <cstdint>

#include "kernels/backends.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_plans.h"

namespace nsa::cuda {
namespace {

uint32_t AlignmentOf(const void* address) {
  constexpr uint64_t kLargest = 256;
  const auto bits = reinterpret_cast<uint64_t>(address) | kLargest;
  return uint32_t{1} << std::countr_zero(bits);
}

}  // namespace

void Linear(const LinearArgs& args, const Stream& stream) {
  const LinearShape shape{.num_tokens = args.x.dim(0),
                          .num_outputs = args.weight.num_outputs,
                          .num_inputs = args.weight.num_inputs,
                          .dtype = args.x.dtype(),
                          .out_dtype = args.out.dtype(),
                          .x_alignment = AlignmentOf(args.x.raw()),
                          .weight_alignment = AlignmentOf(args.weight.data.raw()),
                          .out_alignment = AlignmentOf(args.out.raw())};
  if (shape.num_tokens == 0 || shape.num_outputs == 0) return;
  Context& context = *stream.cuda;
  const LinearPlan& plan =
      context.linear_plans().Get(context.cublas(), shape, Context::kLinearWorkspaceBytes);
  const float one = 1, zero = 0;
  NSA_CUBLAS_CHECK(cublasLtMatmul(
      context.cublas(), plan.multiply(), &one, args.weight.data.raw(), plan.weight(), args.x.raw(),
      plan.x(), &zero, args.out.raw(), plan.out(), args.out.raw(), plan.out(), plan.algorithm(),
      context.linear_workspace(), Context::kLinearWorkspaceBytes, context.stream()));
}

}  // namespace nsa::cuda
