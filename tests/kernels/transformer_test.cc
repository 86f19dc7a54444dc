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

TEST_P(TransformerTest, RmsNorm) {
  for (int64_t dim : {1, 7, 16, 33, 512}) {
    const Tensor x = RandomTensor(DType::kF32, {num_tokens_, dim}, random_, 3);
    const Tensor weight = RandomTensor(DType::kF32, {dim}, random_);
    Tensor out(DType::kF32, {num_tokens_, dim});
    RmsNorm({.x = x, .weight = weight, .out = out, .epsilon = 1e-3F}, stream_);
    std::vector<double> expected;
    for (int64_t t = 0; t < num_tokens_; ++t) {
      double sum = 0;
      for (int64_t i = 0; i < dim; ++i) sum += x.At(t * dim + i) * x.At(t * dim + i);
      for (int64_t i = 0; i < dim; ++i) {
        expected.push_back(x.At(t * dim + i) / std::sqrt(sum / static_cast<double>(dim) + 1e-3) *
                           weight.At(i));
      }
    }
    EXPECT_TRUE(IsClose(out, expected, {1e-6, 2e-6})) << dim;
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

TEST_P(TransformerTest, AddInPlace) {
  Tensor x = RandomTensor(DType::kF32, {num_tokens_, 1001}, random_);
  const Tensor y = RandomTensor(DType::kF32, {num_tokens_, 1001}, random_);
  std::vector<double> expected;
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    expected.push_back(static_cast<float>(x.At(i)) + static_cast<float>(y.At(i)));
  }
  AddInPlace({.x = x, .y = y}, stream_);
  EXPECT_TRUE(IsClose(x, expected, {0, 0}));
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

std::vector<double> ReferenceRope(const Tensor& x, const std::vector<int32_t>& positions,
                                  const Tensor& inv_freq) {
  const int64_t num_heads = x.view().dim(1), d = x.view().dim(2), half = d / 2;
  std::vector<double> out;
  for (int64_t i = 0; i < x.num_elements(); ++i) out.push_back(x.At(i));
  for (size_t t = 0; t < positions.size(); ++t) {
    for (int64_t head = 0; head < num_heads && positions[t] >= 0; ++head) {
      double* row = out.data() + (static_cast<int64_t>(t) * num_heads + head) * d;
      for (int64_t c = 0; c < half; ++c) {
        const double angle = static_cast<double>(positions[t]) * inv_freq.At(c);
        const double a = row[c], b = row[c + half];
        row[c] = a * std::cos(angle) - b * std::sin(angle);
        row[c + half] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return out;
}

TEST(ApplyRopeTest, IsExactToFp32UpToAMillionPositions) {
  std::mt19937 random(17);
  const std::vector<int32_t> positions = {0, 1, 31, 4095, -1, 65535, 131071, 999999, 1000000};
  for (int64_t d : {2, 6, 64, 128}) {
    Tensor x = RandomTensor(DType::kF32, {9, 3, d}, random);
    Tensor inv_freq(DType::kF32, {d / 2});
    for (int64_t c = 0; c < d / 2; ++c) {
      inv_freq.Set(c, std::pow(10000.0, -2.0 * static_cast<double>(c) / static_cast<double>(d)));
    }
    const std::vector<double> expected = ReferenceRope(x, positions, inv_freq);
    ThreadPool threads(2);
    ApplyRope({.x = x, .positions = I32Tensor(positions), .inv_freq = inv_freq},
              {.threads = &threads});
    EXPECT_TRUE(IsClose(x, expected, {5e-7, 1e-6})) << d;
  }
}

TEST(ApplyRopeTest, ScoresDependOnTheDistanceAlone) {
  std::mt19937 random(17);
  Tensor q = RandomTensor(DType::kF32, {1, 1, 64}, random),
         k = RandomTensor(DType::kF32, {1, 1, 64}, random);
  Tensor inv_freq(DType::kF32, {32});
  for (int64_t c = 0; c < 32; ++c) inv_freq.Set(c, std::pow(10000.0, -static_cast<double>(c) / 32));
  const auto score = [&](int32_t q_position, int32_t k_position) {
    Tensor rotated_q(DType::kF32, {1, 1, 64}), rotated_k(DType::kF32, {1, 1, 64});
    for (int64_t i = 0; i < 64; ++i) rotated_q.Set(i, q.At(i)), rotated_k.Set(i, k.At(i));
    ApplyRope({.x = rotated_q, .positions = I32Tensor({q_position}), .inv_freq = inv_freq}, {});
    ApplyRope({.x = rotated_k, .positions = I32Tensor({k_position}), .inv_freq = inv_freq}, {});
    double sum = 0;
    for (int64_t i = 0; i < 64; ++i) sum += rotated_q.At(i) * rotated_k.At(i);
    return sum;
  };
  EXPECT_NEAR(score(20, 3), score(500020, 500003), 2e-5);
  EXPECT_GT(std::fabs(score(20, 3) - score(21, 3)), 1e-2);
}

TEST(TransformerDeathTest, GatherChecksItsIndices) {
  const Tensor x(DType::kF32, {3, 2}), out(DType::kF32, {1, 2});
  EXPECT_DEATH(GatherRows({.x = x, .indices = I32Tensor({3}), .out = out}, {}), "index 3 of 3");
}

}  // namespace
}  // namespace nsa::testing
