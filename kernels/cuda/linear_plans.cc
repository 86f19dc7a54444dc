#include "kernels/cuda/linear_plans.h"

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

template <typename T>
T AttributeOf(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t name) {
  T value{};
  size_t size = 0;
  NSA_CUBLAS_CHECK(
      cublasLtMatmulAlgoConfigGetAttribute(&algorithm, name, &value, sizeof(value), &size));
  return value;
}

// Whether it runs in one launch, in clusters of which two blocks share their part of the weights.
bool SharesWeightsInOneLaunch(const cublasLtMatmulAlgo_t& algorithm) {
  const auto cluster = AttributeOf<uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID);
  return AttributeOf<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) == 1 &&
         (cluster == CUBLASLT_CLUSTER_SHAPE_1x2x1 || cluster == CUBLASLT_CLUSTER_SHAPE_4x2x1);
}

// cuBLASLt's first proposal, but for a batch of decode steps the first one that shares weights in
// one launch, if there is one: the best of that kind take 5 to 11 % less than split sums at 24, 48
// and 64 tokens, but the first need not be the best (bench/lab says what is not known). A rule
// rather than a measurement at start-up, so that every start gives the same bits.
const cublasLtMatmulAlgo_t& Choose(const cublasLtMatmulHeuristicResult_t* proposals,
                                   int num_proposals, int64_t num_tokens) {
  constexpr int64_t kMinTokens = 17, kMaxTokens = 64;
  if (num_tokens >= kMinTokens && num_tokens <= kMaxTokens) {
    for (int i = 0; i < num_proposals; ++i) {
      if (SharesWeightsInOneLaunch(proposals[i].algo)) return proposals[i].algo;
    }
  }
  return proposals[0].algo;
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
  constexpr int kMaxProposals = 8;
  cublasLtMatmulHeuristicResult_t proposals[kMaxProposals];
  int num_found = 0;
  NSA_CUBLAS_CHECK(cublasLtMatmulAlgoGetHeuristic(cublas, multiply_, weight_, x_, out_, out_,
                                                  preference, kMaxProposals, proposals,
                                                  &num_found));
  NSA_CHECK(num_found > 0) << "cuBLASLt multiplies no [" << shape.num_tokens << ", "
                           << shape.num_inputs << "] " << DTypeName(shape.dtype) << " by ["
                           << shape.num_outputs << ", " << shape.num_inputs << "]";
  algorithm_ = Choose(proposals, num_found, shape.num_tokens);
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

}  // namespace nsa::cuda
