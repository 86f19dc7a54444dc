// Linear, EmbedTokens and PackWeight against plain sums, and the bit-identity of a token's outputs.

#include <gtest/gtest.h>

#include <cstring>
#include <tuple>

#include "kernels/transformer.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

// A packed weight with its storage and the matrix it was made from.
struct TestWeight {
  Tensor matrix;  // [out, in] f32, already rounded to the packed dtype
  Tensor storage;
  PackedWeight packed;
};

TestWeight MakeWeight(int64_t num_outputs, int64_t num_inputs, DType dtype, std::mt19937& random) {
  TestWeight weight;
  weight.matrix = RandomTensor(DType::kF32, {num_outputs, num_inputs}, random);
  if (dtype == DType::kBF16) {
    float* elements = weight.matrix.data<float>();
    for (int64_t i = 0; i < weight.matrix.num_elements(); ++i) {
      elements[i] = static_cast<float>(BFloat16(elements[i]));
    }
  }
  const int64_t num_bytes = PackedWeightBytes(num_outputs, num_inputs, dtype);
  weight.storage = Tensor(dtype, {num_bytes / DTypeBytes(dtype)});
  weight.packed = {num_outputs, num_inputs, weight.storage.view()};
  PackWeight(weight.matrix, 0, weight.packed);
  return weight;
}

std::vector<double> ReferenceLinear(const Tensor& x, const Tensor& matrix) {
  const int64_t num_inputs = x.view().dim(1);
  std::vector<double> out;
  for (int64_t t = 0; t < x.view().dim(0); ++t) {
    for (int64_t o = 0; o < matrix.view().dim(0); ++o) {
      double sum = 0;
      for (int64_t i = 0; i < num_inputs; ++i) {
        sum += x.At(t * num_inputs + i) * matrix.At(o * num_inputs + i);
      }
      out.push_back(sum);
    }
  }
  return out;
}

Tensor RunLinear(const Tensor& x, const TestWeight& weight, ThreadPool* threads = nullptr) {
  Tensor out(DType::kF32, {x.view().dim(0), weight.packed.num_outputs});
  Linear({.x = x, .weight = weight.packed, .out = out}, {.threads = threads});
  return out;
}

Tensor Rows(const Tensor& x, int64_t first, int64_t num) {
  Tensor rows(x.view().dtype(), {num, x.view().dim(1)});
  const TensorView slice = x.view().Slice(first, num);
  std::memcpy(rows.view().raw(), slice.raw(), static_cast<size_t>(slice.num_bytes()));
  return rows;
}

class LinearTest : public ::testing::TestWithParam<std::tuple<int64_t, int64_t, DType>> {
 protected:
  TestWeight Weight() {
    const auto [num_outputs, num_inputs, dtype] = GetParam();
    return MakeWeight(num_outputs, num_inputs, dtype, random_);
  }
  std::mt19937 random_{7};
};

TEST_P(LinearTest, MatchesReference) {
  const TestWeight weight = Weight();
  for (int64_t num_tokens : {0, 1, 2, 12, 13, 31, 32, 33}) {
    const Tensor x = RandomTensor(DType::kF32, {num_tokens, weight.packed.num_inputs}, random_);
    const double deviation = std::sqrt(static_cast<double>(weight.packed.num_inputs));
    EXPECT_TRUE(
        IsClose(RunLinear(x, weight), ReferenceLinear(x, weight.matrix), {4e-6 * deviation, 1e-5}))
        << num_tokens << " tokens";
  }
}

TEST_P(LinearTest, BitsDoNotDependOnTheNumberOfTokensOrThreads) {
  const TestWeight weight = Weight();
  constexpr int64_t kMaxTokens = 40;
  const Tensor x = RandomTensor(DType::kF32, {kMaxTokens, weight.packed.num_inputs}, random_);
  Tensor single(DType::kF32, {kMaxTokens, weight.packed.num_outputs});
  for (int64_t t = 0; t < kMaxTokens; ++t) {
    const Tensor out = RunLinear(Rows(x, t, 1), weight);
    std::copy_n(out.data<float>(), out.num_elements(),
                single.data<float>() + t * weight.packed.num_outputs);
  }
  ThreadPool two(2), five(5);
  for (int64_t num_tokens = 1; num_tokens <= kMaxTokens; ++num_tokens) {
    ThreadPool* threads = num_tokens % 3 == 0 ? nullptr : num_tokens % 3 == 1 ? &two : &five;
    ASSERT_TRUE(IsIdentical(RunLinear(Rows(x, 0, num_tokens), weight, threads),
                            Rows(single, 0, num_tokens)))
        << num_tokens << " tokens";
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, LinearTest,
                         ::testing::Combine(::testing::Values(1, 15, 16, 17, 31, 32, 33, 100),
                                            ::testing::Values(1, 2, 3, 7, 64, 511, 512, 513, 1030),
                                            ::testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& info) {
                           return std::string(DTypeName(std::get<2>(info.param))) + "_" +
                                  std::to_string(std::get<0>(info.param)) + "x" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(LinearTaskTest, ManyTokensAndPanelsMatchReference) {
  std::mt19937 random(3);
  const TestWeight weight = MakeWeight(1000, 40, DType::kBF16, random);
  const Tensor x = RandomTensor(DType::kF32, {301, 40}, random);
  ThreadPool threads(3);
  const Tensor out = RunLinear(x, weight, &threads);
  EXPECT_TRUE(IsClose(out, ReferenceLinear(x, weight.matrix), {2e-5, 1e-5}));
  EXPECT_TRUE(IsIdentical(out, RunLinear(x, weight)));
}

TEST(LinearOrderTest, IsOneFusedChainInAscendingOrder) {
  std::mt19937 random(5);
  const TestWeight weight = MakeWeight(40, 700, DType::kF32, random);
  const Tensor x = RandomTensor(DType::kF32, {3, 700}, random);
  Tensor expected(DType::kF32, {3, 40});
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t o = 0; o < 40; ++o) {
      float sum = 0;
      for (int64_t i = 0; i < 700; ++i) {
        sum =
            std::fmaf(x.data<float>()[t * 700 + i], weight.matrix.data<float>()[o * 700 + i], sum);
      }
      expected.Set(t * 40 + o, sum);
    }
  }
  EXPECT_TRUE(IsIdentical(RunLinear(x, weight), expected));
}

TEST(LinearZeroInputsTest, WritesZeros) {
  std::mt19937 random(1);
  const TestWeight weight = MakeWeight(3, 0, DType::kF32, random);
  EXPECT_TRUE(IsClose(RunLinear(Tensor(DType::kF32, {2, 0}), weight), std::vector<double>(6, 0.0)));
}

TEST(PackWeightTest, PiecesMakeTheSameMatrixAsTheWhole) {
  std::mt19937 random(2);
  for (DType from : {DType::kF32, DType::kBF16}) {
    for (DType to : {DType::kF32, DType::kBF16}) {
      const Tensor matrix = RandomTensor(from, {75, 9}, random);
      const int64_t num_elements = PackedWeightBytes(75, 9, to) / DTypeBytes(to);
      Tensor whole(to, {num_elements}), pieces(to, {num_elements});
      PackedWeight packed_whole{75, 9, whole.view()}, packed_pieces{75, 9, pieces.view()};
      PackWeight(matrix, 0, packed_whole);
      PackWeight(matrix.view().Slice(0, 30), 0, packed_pieces);
      PackWeight(matrix.view().Slice(30, 5), 30, packed_pieces);
      PackWeight(matrix.view().Slice(35, 40), 35, packed_pieces);
      EXPECT_TRUE(IsIdentical(pieces, whole));
    }
  }
}

TEST(PackWeightTest, ConvertsHalfPrecision) {
  Tensor matrix(DType::kF16, {1, 3});
  const uint16_t halves[] = {0x3c00, 0xc100, 0x0001};  // 1, -2.5, 2^-24
  std::memcpy(matrix.view().raw(), halves, sizeof(halves));
  Tensor storage(DType::kF32, {PackedWeightBytes(1, 3, DType::kF32) / 4});
  PackedWeight packed{1, 3, storage.view()};
  PackWeight(matrix, 0, packed);
  EXPECT_EQ(storage.At(PackedIndex(packed, 0, 0)), 1);
  EXPECT_EQ(storage.At(PackedIndex(packed, 0, 1)), -2.5);
  EXPECT_EQ(storage.At(PackedIndex(packed, 0, 2)), 0x1p-24);
  EXPECT_EQ(storage.At(kPanelOutputs - 1), 0);  // padding
}

TEST(EmbedTokensTest, CopiesRowsOfThePackedWeight) {
  std::mt19937 random(4);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const TestWeight weight = MakeWeight(70, 33, dtype, random);
    const std::vector<int32_t> ids = {0, 69, 31, 32, 5, 5, 63};
    Tensor out(DType::kF32, {7, 33});
    ThreadPool threads(2);
    EmbedTokens({.ids = I32Tensor(ids), .weight = weight.packed, .out = out},
                {.threads = &threads});
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_TRUE(
          IsIdentical(Rows(out, static_cast<int64_t>(i), 1), Rows(weight.matrix, ids[i], 1)));
    }
  }
}

// W row-major, in the dtype of x; cuBLASLt needs no alignment of the test's odd sizes.
class CudaLinearTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (BuildDevices().size() == 1) GTEST_SKIP() << "this build has no CUDA";
    if (!HasDevice(DeviceType::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

TEST_P(CudaLinearTest, MatchesReference) {
  const DType dtype = GetParam();
  std::mt19937 random(7);
  for (const auto& [num_outputs, num_inputs] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                {17, 7},
                                                {100, 513},
                                                {256, 512},
                                                {1000, 64},
                                                {8, 8},
                                                {120, 136},
                                                {136, 1416},
                                                {392, 5128}}) {
    const Tensor matrix = RandomTensor(dtype, {num_outputs, num_inputs}, random);
    for (int64_t num_tokens : {0, 1, 2, 13, 16, 17, 32, 33, 64, 65, 200}) {
      const Tensor x = RandomTensor(dtype, {num_tokens, num_inputs}, random);
      Tensor out(dtype, {num_tokens, num_outputs}), out_f32(DType::kF32, {num_tokens, num_outputs});
      OnDevice on(DeviceType::kCuda);
      const PackedWeight weight{num_outputs, num_inputs, on(matrix)};
      Linear({.x = on(x), .weight = weight, .out = on(out)}, on.stream());
      Linear({.x = on(x), .weight = weight, .out = on(out_f32)}, on.stream());
      on.Fetch();
      const std::vector<double> expected = ReferenceLinear(x, matrix);
      const double deviation = std::sqrt(static_cast<double>(num_inputs));
      const Tolerance exact{1e-5 * deviation, 2e-5};
      EXPECT_TRUE(IsClose(out_f32, expected, exact))
          << num_tokens << " x " << num_inputs << " x " << num_outputs;
      EXPECT_TRUE(IsClose(out, expected, ToleranceOf(dtype, exact)))
          << num_tokens << " x " << num_inputs << " x " << num_outputs;
    }
  }
}

TEST_P(CudaLinearTest, EmbedTokensCopiesRows) {
  std::mt19937 random(4);
  for (int64_t dim : {33, 64}) {
    const Tensor matrix = RandomTensor(GetParam(), {70, dim}, random);
    const Tensor ids = I32Tensor({0, 69, 31, 32, 5, 5, 63});
    Tensor out(DType::kF32, {7, dim});
    OnDevice on(DeviceType::kCuda);
    EmbedTokens({.ids = on(ids), .weight = {70, dim, on(matrix)}, .out = on(out)}, on.stream());
    on.Fetch();
    for (int64_t i = 0; i < 7 * dim; ++i) {
      EXPECT_EQ(out.At(i), matrix.At(static_cast<int64_t>(ids.At(i / dim)) * dim + i % dim));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, CudaLinearTest,
                         ::testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& info) { return std::string(DTypeName(info.param)); });

TEST(EmbedTokensDeathTest, IdOutsideTheVocabulary) {
  std::mt19937 random(4);
  const TestWeight weight = MakeWeight(70, 3, DType::kF32, random);
  Tensor out(DType::kF32, {1, 3});
  EXPECT_DEATH(EmbedTokens({.ids = I32Tensor({70}), .weight = weight.packed, .out = out}, {}),
               "id 70 of 70");
}

}  // namespace
}  // namespace nsa::testing
