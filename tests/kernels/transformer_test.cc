// The dense operations besides Linear.

#include "kernels/transformer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/compare.h"

namespace nsa::testing {
namespace {

class TransformerTest : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t num_tokens_ = GetParam();
  std::mt19937 random_{13};
  ThreadPool threads_{3};
  const Stream stream_{.threads = &threads_};
};

TEST_P(TransformerTest, AddRmsNorm) {
  for (int64_t dim : {1, 7, 16, 33, 512}) {
    for (const bool with_y : {false, true}) {
      Tensor x = RandomTensor(DType::kF32, {num_tokens_, dim}, random_, 3);
      const Tensor y = RandomTensor(DType::kF32, {num_tokens_, dim}, random_, 3);
      const Tensor weight = RandomTensor(DType::kF32, {dim}, random_);
      Tensor out(DType::kF32, {num_tokens_, dim});
      std::vector<double> sums, expected;
      for (int64_t i = 0; i < x.num_elements(); ++i) {
        sums.push_back(static_cast<float>(x.At(i)) + (with_y ? static_cast<float>(y.At(i)) : 0.0F));
      }
      for (int64_t t = 0; t < num_tokens_; ++t) {
        const double* row = sums.data() + t * dim;
        double sum = 0;
        for (int64_t i = 0; i < dim; ++i) sum += row[i] * row[i];
        const double norm = std::sqrt(sum / static_cast<double>(dim) + 1e-3);
        for (int64_t i = 0; i < dim; ++i) expected.push_back(row[i] / norm * weight.At(i));
      }
      AddRmsNorm({.x = x,
                  .y = with_y ? y.view() : TensorView(),
                  .weight = weight,
                  .out = out,
                  .epsilon = 1e-3F},
                 stream_);
      EXPECT_TRUE(IsClose(x, sums, {0, 0})) << dim;
      EXPECT_TRUE(IsClose(out, expected, {1e-6, 2e-6})) << dim;
    }
  }
}

TEST_P(TransformerTest, SwiGlu) {
  for (int64_t dim : {1, 5, 16, 130}) {
    Tensor gate_up = RandomTensor(DType::kF32, {num_tokens_, 2 * dim}, random_, 3);
    if (num_tokens_ > 0) gate_up.Set(0, -300);  // silu is 0 there, not NaN
    Tensor out(DType::kF32, {num_tokens_, dim});
    SwiGlu({.gate_up = gate_up, .out = out}, stream_);
    std::vector<double> expected;
    for (int64_t t = 0; t < num_tokens_; ++t) {
      for (int64_t i = 0; i < dim; ++i) {
        const double gate = gate_up.At(t * 2 * dim + i), up = gate_up.At(t * 2 * dim + dim + i);
        expected.push_back(gate / (1 + std::exp(-gate)) * up);
      }
    }
    EXPECT_TRUE(IsClose(out, expected, {1e-6, 2e-6})) << dim;
  }
}

TEST_P(TransformerTest, GatherRows) {
  const Tensor x = RandomTensor(DType::kF32, {50, 9}, random_);
  std::vector<int32_t> indices;
  std::vector<double> expected;
  for (int64_t i = 0; i < num_tokens_; ++i) {
    indices.push_back(static_cast<int32_t>(i * 17 % 50));
    for (int64_t c = 0; c < 9; ++c) expected.push_back(x.At(indices.back() * 9 + c));
  }
  Tensor out(DType::kF32, {num_tokens_, 9});
  GatherRows({.x = x, .indices = I32Tensor(indices), .out = out}, stream_);
  EXPECT_TRUE(IsClose(out, expected, {0, 0}));
}

INSTANTIATE_TEST_SUITE_P(Tokens, TransformerTest, ::testing::Values(0, 1, 31, 32, 33));

TEST(TransformerDeathTest, GatherChecksItsIndices) {
  const Tensor x(DType::kF32, {3, 2}), out(DType::kF32, {1, 2});
  EXPECT_DEATH(GatherRows({.x = x, .indices = I32Tensor({3}), .out = out}, {}), "index 3 of 3");
}

}  // namespace
}  // namespace nsa::testing
