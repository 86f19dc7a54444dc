#include "kernels/cuda/linear_plans.h"

#include <bit>

#include "kernels/cuda/launch.h"

namespace nsa::cuda {
namespace {

cudaDataType_t CudaType(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

template <typename T>
void SetAttribute(cublasLtMatmulDesc_t descriptor, cublasLtMatmulDescAttributes_t name, T value) {
  NSA_CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(descriptor, name, &value, sizeof(value)));
}

template <typename T>
void SetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name,
                  T value) {
  NSA_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof(value)));
}

uint32_t AlignmentOf(const void* address) {
  constexpr uint64_t kLargest = 256;
  const auto bits = reinterpret_cast<uint64_t>(address) | kLargest;
  return uint32_t{1} << std::countr_zero(bits);
}

}  // namespace

// cuBLASLt thinks in column-major matrices: a row-major [rows, columns] is its [columns, rows].
// out^T [outputs, tokens] = (W^T [inputs, outputs])^T times x^T [inputs, tokens].
LinearPlan::LinearPlan(cublasLtHandle_t cublas, const LinearShape& shape, int64_t workspace_bytes) {
  const auto inputs = static_cast<uint64_t>(shape.num_inputs);
  const auto outputs = static_cast<uint64_t>(shape.num_outputs);
  const auto tokens = static_cast<uint64_t>(shape.num_tokens);
  const cudaDataType_t type = CudaType(shape.dtype);
  // fp32 operands are multiplied in fp32, not in tf32.
  NSA_CUBLAS_CHECK(cublasLtMatmulDescCreate(&multiply_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  SetAttribute(multiply_, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  NSA_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&weight_, type, inputs, outputs, inputs));
  NSA_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&x_, type, inputs, tokens, inputs));
  NSA_CUBLAS_CHECK(
      cublasLtMatrixLayoutCreate(&out_, CudaType(shape.out_dtype), outputs, tokens, outputs));

  cublasLtMatmulPreference_t preference = nullptr;
  NSA_CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  SetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
               static_cast<uint64_t>(workspace_bytes));
  SetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.weight_alignment);
  SetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.x_alignment);
  SetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.out_alignment);
  SetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.out_alignment);
  cublasLtMatmulHeuristicResult_t proposal;
  int num_found = 0;
  NSA_CUBLAS_CHECK(cublasLtMatmulAlgoGetHeuristic(cublas, multiply_, weight_, x_, out_, out_,
                                                  preference, 1, &proposal, &num_found));
  NSA_CHECK(num_found > 0) << "cuBLASLt multiplies no [" << shape.num_tokens << ", "
                           << shape.num_inputs << "] " << DTypeName(shape.dtype) << " by ["
                           << shape.num_outputs << ", " << shape.num_inputs << "]";
  algorithm_ = proposal.algo;
  NSA_CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
}

LinearPlan::~LinearPlan() {
  cublasLtMatrixLayoutDestroy(out_);
  cublasLtMatrixLayoutDestroy(x_);
  cublasLtMatrixLayoutDestroy(weight_);
  cublasLtMatmulDescDestroy(multiply_);
}

const LinearPlan& LinearPlans::Get(cublasLtHandle_t cublas, const LinearShape& shape,
                                   int64_t workspace_bytes) {
  return plans_.try_emplace(shape, cublas, shape, workspace_bytes).first->second;
}

void LinearThroughCublas(const LinearArgs& args, const Stream& stream) {
  const LinearShape shape{.num_tokens = args.x.dim(0),
                          .num_outputs = args.weight.num_outputs,
                          .num_inputs = args.weight.num_inputs,
                          .dtype = args.x.dtype(),
                          .out_dtype = args.out.dtype(),
                          .x_alignment = AlignmentOf(args.x.raw()),
                          .weight_alignment = AlignmentOf(args.weight.data.raw()),
                          .out_alignment = AlignmentOf(args.out.raw())};
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
