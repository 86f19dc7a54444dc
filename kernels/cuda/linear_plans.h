#pragma once
// Which cuBLASLt algorithm multiplies which shape: asked once, then remembered.

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <map>

#include "base/dtype.h"
#include "kernels/device.h"
#include "kernels/transformer.h"

namespace nsa::cuda {

// out [num_tokens, num_outputs] = x [num_tokens, num_inputs] times W^T.
struct LinearShape {
  int64_t num_tokens, num_outputs, num_inputs;
  DType dtype;      // of x and W
  DType out_dtype;  // that dtype, or f32
  // Bytes to which each operand's address is aligned, at most 256: some algorithms need 16.
  uint32_t x_alignment, weight_alignment, out_alignment;

  auto operator<=>(const LinearShape&) const = default;
};

// Owns the descriptors that cublasLtMatmul takes for a shape.
class LinearPlan {
 public:
  LinearPlan(cublasLtHandle_t cublas, const LinearShape& shape, int64_t workspace_bytes);
  ~LinearPlan();
  LinearPlan(const LinearPlan&) = delete;
  LinearPlan& operator=(const LinearPlan&) = delete;

  cublasLtMatmulDesc_t multiply() const { return multiply_; }
  cublasLtMatrixLayout_t weight() const { return weight_; }
  cublasLtMatrixLayout_t x() const { return x_; }
  cublasLtMatrixLayout_t out() const { return out_; }
  const cublasLtMatmulAlgo_t* algorithm() const { return &algorithm_; }

 private:
  cublasLtMatmulDesc_t multiply_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, out_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_;
};

class LinearPlans {
 public:
  // The plan for this shape, made on first use. One thread at a time.
  const LinearPlan& Get(cublasLtHandle_t cublas, const LinearShape& shape, int64_t workspace_bytes);

 private:
  std::map<LinearShape, LinearPlan> plans_;
};

// Linear of any operands with tokens and outputs, by the plans of the stream's context.
void LinearThroughCublas(const LinearArgs& args, const Stream& stream);

}  // namespace nsa::cuda
