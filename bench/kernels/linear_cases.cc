#include <deque>
#include <random>
#include <string>

#include "bench/kernels/cases.h"
#include "kernels/transformer.h"

namespace nsa::bench {
namespace {

// Matrices that together hold at least this much never come from a cache.
constexpr int64_t kColdBytes = int64_t{512} << 20;

struct Matrix {
  std::vector<char> storage;
  PackedWeight packed;
};

Matrix MakeMatrix(int64_t num_outputs, int64_t num_inputs, DType dtype) {
  Matrix matrix;
  const int64_t num_bytes = PackedWeightBytes(num_outputs, num_inputs, dtype);
  matrix.storage.assign(static_cast<size_t>(num_bytes), 0);
  matrix.packed = {num_outputs, num_inputs,
                   TensorView(matrix.storage.data(), dtype, {num_bytes / DTypeBytes(dtype)})};
  return matrix;
}

Result LinearCase(const BenchContext& context, int64_t num_tokens, int64_t num_outputs,
                  int64_t num_inputs, DType dtype) {
  const int64_t num_bytes = PackedWeightBytes(num_outputs, num_inputs, dtype);
  const int64_t num_matrices = num_tokens > 64 ? 1 : kColdBytes / num_bytes + 1;
  std::deque<Matrix> matrices;
  for (int64_t i = 0; i < num_matrices; ++i) {
    matrices.push_back(MakeMatrix(num_outputs, num_inputs, dtype));
  }
  std::vector<float> x(static_cast<size_t>(num_tokens * num_inputs), 1.0F);
  std::vector<float> out(static_cast<size_t>(num_tokens * num_outputs));
  const TensorView x_view(x.data(), DType::kF32, {num_tokens, num_inputs});
  const TensorView out_view(out.data(), DType::kF32, {num_tokens, num_outputs});
  size_t next = 0;
  const double seconds = MedianSeconds([&] {
    Linear({.x = x_view, .weight = matrices[next].packed, .out = out_view},
           {.threads = &context.threads});
    next = (next + 1) % matrices.size();
  });
  const std::string shape = std::to_string(num_tokens) + " x " + std::to_string(num_inputs) +
                            " -> " + std::to_string(num_outputs) + " " +
                            std::string(DTypeName(dtype));
  const double operations = 2.0 * static_cast<double>(num_tokens * num_inputs * num_outputs);
  const bool is_decode = num_tokens <= 64;
  return MakeResult(context, is_decode ? "linear decode" : "linear prefill", shape, seconds,
                    is_decode ? static_cast<double>(num_bytes) : 0,
                    num_tokens > 1 ? operations : 0);
}

}  // namespace

std::vector<Result> LinearCases(const BenchContext& context) {
  std::vector<Result> results;
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    for (int64_t num_tokens : {1, 2, 4, 8, 16}) {
      results.push_back(LinearCase(context, num_tokens, 4096, 4096, dtype));
    }
    results.push_back(LinearCase(context, 1, 1408, 512, dtype));
    results.push_back(LinearCase(context, 1, 512, 1408, dtype));
    results.push_back(LinearCase(context, 512, 4096, 4096, dtype));
    results.push_back(LinearCase(context, 512, 1408, 512, dtype));
    results.push_back(LinearCase(context, 512, 512, 1408, dtype));
    results.push_back(LinearCase(context, 512, 48, 512, dtype));
  }
  return results;
}

}  // namespace nsa::bench
