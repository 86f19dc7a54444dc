// The dense operations besides Linear.

#include "kernels/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

// Activations are f32 on the CPU, and of every dtype on a GPU.
struct Where {
  DeviceType device;
  DType activation;
};
std::vector<Where> AllPlaces() {
  std::vector<Where> places = {{DeviceType::kCpu, DType::kF32}};
  if (BuildDevices().size() == 1) return places;
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    places.push_back({DeviceType::kCuda, dtype});
  }
  return places;
}

class TransformerTest : public ::testing::TestWithParam<std::tuple<Where, int64_t>> {
 protected:
  void SetUp() override {
    if (!HasDevice(device_)) GTEST_SKIP() << "this machine has no GPU";
  }
  Tolerance Allowed(Tolerance f32) const { return ToleranceOf(activation_, f32); }

  const DeviceType device_ = std::get<0>(GetParam()).device;
  const DType activation_ = std::get<0>(GetParam()).activation;
  const int64_t num_tokens_ = std::get<1>(GetParam());
  std::mt19937 random_{13};
  ThreadPool threads_{3};
};

TEST_P(TransformerTest, AddRmsNorm) {
  for (int64_t dim : {1, 7, 16, 33, 512, 9000}) {
    for (const bool with_y : {false, true}) {
      Tensor x = RandomTensor(DType::kF32, {num_tokens_, dim}, random_, 3);
      const Tensor y = RandomTensor(activation_, {num_tokens_, dim}, random_, 3);
      const Tensor weight = RandomTensor(DType::kF32, {dim}, random_);
      Tensor out(activation_, {num_tokens_, dim});
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
      OnDevice on(device_, &threads_);
      AddRmsNorm({.x = on(x),
                  .y = with_y ? on(y) : TensorView(),
                  .weight = on(weight),
                  .out = on(out),
                  .epsilon = 1e-3F},
                 on.stream());
      on.Fetch();
      EXPECT_TRUE(IsClose(x, sums, {0, 0})) << dim;
      EXPECT_TRUE(IsClose(out, expected, Allowed({1e-6, 2e-6}))) << dim;
    }
  }
}

TEST_P(TransformerTest, SwiGlu) {
  for (int64_t dim : {1, 5, 16, 130}) {
    Tensor gate_up = RandomTensor(activation_, {num_tokens_, 2 * dim}, random_, 3);
    if (num_tokens_ > 0) gate_up.Set(0, -300);  // silu is 0 there, not NaN
    Tensor out(activation_, {num_tokens_, dim});
    OnDevice on(device_, &threads_);
    SwiGlu({.gate_up = on(gate_up), .out = on(out)}, on.stream());
    on.Fetch();
    std::vector<double> expected;
    for (int64_t t = 0; t < num_tokens_; ++t) {
      for (int64_t i = 0; i < dim; ++i) {
        const double gate = gate_up.At(t * 2 * dim + i), up = gate_up.At(t * 2 * dim + dim + i);
        expected.push_back(gate / (1 + std::exp(-gate)) * up);
      }
    }
    EXPECT_TRUE(IsClose(out, expected, Allowed({1e-6, 2e-6}))) << dim;
  }
}

TEST_P(TransformerTest, GatherRows) {
  for (int64_t dim : {9, 520}) {
    const Tensor x = RandomTensor(activation_, {50, dim}, random_);
    std::vector<int32_t> indices;
    std::vector<double> expected;
    for (int64_t i = 0; i < num_tokens_; ++i) {
      indices.push_back(static_cast<int32_t>(i * 17 % 50));
      for (int64_t c = 0; c < dim; ++c) expected.push_back(x.At(indices.back() * dim + c));
    }
    const Tensor indices_tensor = I32Tensor(indices);
    Tensor out(activation_, {num_tokens_, dim});
    OnDevice on(device_, &threads_);
    GatherRows({.x = on(x), .indices = on(indices_tensor), .out = on(out)}, on.stream());
    on.Fetch();
    EXPECT_TRUE(IsClose(out, expected, {0, 0}));
  }
}

INSTANTIATE_TEST_SUITE_P(Places, TransformerTest,
                         ::testing::Combine(::testing::ValuesIn(AllPlaces()),
                                            ::testing::Values(0, 1, 31, 32, 33)),
                         [](const auto& info) {
                           const Where& where = std::get<0>(info.param);
                           return DeviceName(where.device) + "_" +
                                  std::string(DTypeName(where.activation)) + "_" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(TransformerDeathTest, GatherChecksItsIndices) {
  const Tensor x(DType::kF32, {3, 2}), out(DType::kF32, {1, 2});
  EXPECT_DEATH(GatherRows({.x = x, .indices = I32Tensor({3}), .out = out}, {}), "index 3 of 3");
}

}  // namespace
}  // namespace nsa::testing
