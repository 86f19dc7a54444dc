#include "kernels/cpu/phi.h"

#include <algorithm>
#include <cmath>

#include "kernels/checks.h"
#include "kernels/cpu/dot.h"

namespace nsa::cpu {
namespace {

// row = sum over i of weight[i] * span[i], i ascending
void WeightedSum(const PhiArgs& args, const float* weight) {
  std::fill(args.row, args.row + args.d, 0.0F);
  for (int64_t i = 0; i < args.span_tokens; ++i) {
    for (int64_t c = 0; c < args.d; ++c) args.row[c] += weight[i] * args.span[i * args.d + c];
  }
}

void Mean(const PhiArgs& args) {
  std::fill(args.row, args.row + args.d, 0.0F);
  for (int64_t i = 0; i < args.span_tokens; ++i) {
    for (int64_t c = 0; c < args.d; ++c) args.row[c] += args.span[i * args.d + c];
  }
  for (int64_t c = 0; c < args.d; ++c) args.row[c] /= static_cast<float>(args.span_tokens);
}

// out = matrix x, matrix [num_outputs, num_inputs]
void MatVec(const float* matrix, int64_t num_outputs, const float* x, int64_t num_inputs,
            float* out) {
  for (int64_t o = 0; o < num_outputs; ++o) out[o] = Dot(matrix + o * num_inputs, x, num_inputs);
}

float Gelu(float x) {
  constexpr float kSqrtHalf = 0.70710678118654752F;
  return 0.5F * x * (1.0F + std::erf(x * kSqrtHalf));
}

void Mlp(const PhiArgs& args) {
  const int64_t num_inputs = args.span_tokens * args.d;
  const int64_t num_hidden = args.weights.fc1.dim(1);
  float hidden[kMaxPhiHidden];
  MatVec(args.weights.fc1.data<float>() + args.kv_head * num_hidden * num_inputs, num_hidden,
         args.span, num_inputs, hidden);
  for (int64_t i = 0; i < num_hidden; ++i) hidden[i] = Gelu(hidden[i]);
  MatVec(args.weights.fc2.data<float>() + args.kv_head * args.d * num_hidden, args.d, hidden,
         num_hidden, args.row);
}

}  // namespace

void ApplyPhi(const PhiArgs& args) {
  const int64_t num_inputs = args.span_tokens * args.d;
  switch (args.kind) {
    case PhiKind::kMean:
      return Mean(args);
    case PhiKind::kWeightedPool:
      return WeightedSum(args, args.weights.weight.data<float>() + args.kv_head * args.span_tokens);
    case PhiKind::kLinear:
      return MatVec(args.weights.weight.data<float>() + args.kv_head * args.d * num_inputs, args.d,
                    args.span, num_inputs, args.row);
    case PhiKind::kMlp:
      return Mlp(args);
  }
}

}  // namespace nsa::cpu
