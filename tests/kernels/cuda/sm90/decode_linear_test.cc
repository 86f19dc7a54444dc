// The linear kernel of decode steps on a Hopper GPU: a token has the same bits in any batch.
// (linear_test.cc compares it with plain sums.)

#include "kernels/cuda/sm90/decode_linear.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <tuple>

#include "kernels/cuda/context.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr int kHopper = 90;

Tensor FirstRows(const Tensor& tensor, int64_t num_rows) {
  const TensorView slice = tensor.view().Slice(0, num_rows);
  Tensor rows(slice.dtype(), {num_rows, slice.dim(1)});
  std::memcpy(rows.view().raw(), slice.raw(), static_cast<size_t>(slice.num_bytes()));
  return rows;
}

struct Types {
  DType dtype, out_dtype;
};
struct Matrix {
  int64_t num_outputs, num_inputs;
};

class CudaDecodeLinearTest : public ::testing::TestWithParam<std::tuple<Types, Matrix>> {};

TEST_P(CudaDecodeLinearTest, BitsDoNotDependOnTheNumberOfTokens) {
  if (!HasDevice(DeviceType::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  const auto [dtype, out_dtype] = std::get<Types>(GetParam());
  const auto [num_outputs, num_inputs] = std::get<Matrix>(GetParam());
  std::mt19937 random(9);
  const Tensor matrix = RandomTensor(dtype, {num_outputs, num_inputs}, random);
  const Tensor x = RandomTensor(dtype, {cuda::kMaxDecodeLinearTokens, num_inputs}, random);
  Tensor all(out_dtype, {cuda::kMaxDecodeLinearTokens, num_outputs});
  for (int64_t num_tokens : {64, 63, 33, 32, 24, 17, 16, 8, 3, 1}) {
    const Tensor rows = FirstRows(x, num_tokens);
    Tensor out(out_dtype, {num_tokens, num_outputs});
    OnDevice on(DeviceType::kCuda);
    if (on.stream().cuda->compute_capability() != kHopper) GTEST_SKIP() << "this GPU is no Hopper";
    const LinearArgs args{
        .x = on(rows), .weight = {num_outputs, num_inputs, on(matrix)}, .out = on(out)};
    ASSERT_TRUE(cuda::CanRunDecodeLinear(args));
    for (int call = 0; call < 3; ++call) cuda::LaunchDecodeLinear(args, on.stream());
    on.Fetch();
    if (num_tokens == cuda::kMaxDecodeLinearTokens) {
      all = FirstRows(out, num_tokens);
    } else {
      ASSERT_TRUE(IsIdentical(out, FirstRows(all, num_tokens))) << num_tokens;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CudaDecodeLinearTest,
    ::testing::Combine(::testing::Values(Types{DType::kBF16, DType::kBF16},
                                         Types{DType::kBF16, DType::kF32},
                                         Types{DType::kF16, DType::kF16}),
                       // One tile; tiles that end early; tiles that many blocks share; blocks with
                       // several tiles and more units than are on their way at once.
                       ::testing::Values(Matrix{128, 128}, Matrix{1160, 264}, Matrix{264, 4104},
                                         Matrix{30000, 264})),
    [](const auto& info) {
      const auto types = std::get<Types>(info.param);
      const auto matrix = std::get<Matrix>(info.param);
      return std::string(DTypeName(types.dtype)) + "_to_" +
             std::string(DTypeName(types.out_dtype)) + "_" + std::to_string(matrix.num_inputs) +
             "_to_" + std::to_string(matrix.num_outputs);
    });

TEST(DecodeLinearLimitsTest, TokensAlignmentAndTypes) {
  alignas(16) static uint16_t memory[64];
  const auto can_run = [](int64_t num_tokens, int64_t num_inputs, int64_t num_outputs,
                          DType dtype = DType::kBF16, int64_t offset = 0) {
    return cuda::CanRunDecodeLinear(
        {.x = {memory + offset, dtype, {num_tokens, num_inputs}},
         .weight = {num_outputs, num_inputs, {memory, dtype, {num_outputs, num_inputs}}},
         .out = {memory, dtype, {num_tokens, num_outputs}}});
  };
  EXPECT_TRUE(can_run(1, 8, 8));
  EXPECT_TRUE(can_run(64, 8, 8));
  EXPECT_TRUE(can_run(64, 8, 8, DType::kF16));
  EXPECT_FALSE(can_run(0, 8, 8));
  EXPECT_FALSE(can_run(65, 8, 8));
  EXPECT_FALSE(can_run(1, 4, 8));
  EXPECT_FALSE(can_run(1, 8, 12));
  EXPECT_FALSE(can_run(1, 8, 8, DType::kF32));
  EXPECT_FALSE(can_run(1, 8, 8, DType::kBF16, /*offset=*/1));
}

}  // namespace
}  // namespace nsa::testing
