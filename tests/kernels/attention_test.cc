// The four attentions against the reference, over shapes, lengths and dtypes; bit-identity of a
// token's outputs whatever the batch around it.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/support/compare.h"

namespace nsa::testing {
namespace {

// Runs tokens [begin, end) alone and expects the bits they have in `whole`.
void ExpectPart(const AttentionWorld& world, Branch branch, const std::vector<TestToken>& tokens,
                size_t begin, size_t end, ThreadPool* threads, const AttentionOutputs& whole) {
  const auto first = static_cast<int64_t>(begin);
  const std::vector<TestToken> some(tokens.begin() + first,
                                    tokens.begin() + static_cast<int64_t>(end));
  const AttentionOutputs part = world.Run(branch, some, threads);
  const auto same = [&](const Tensor& actual, const Tensor& expected) {
    const TensorView slice = expected.view().Slice(first, actual.view().dim(0));
    return std::memcmp(actual.view().raw(), slice.raw(), static_cast<size_t>(slice.num_bytes())) ==
           0;
  };
  EXPECT_TRUE(same(part.out, whole.out)) << "tokens " << begin << " to " << end;
  EXPECT_TRUE(same(part.lse, whole.lse)) << "tokens " << begin << " to " << end;
}

class AttentionTest : public ::testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override {
    if (!HasDevice(GetParam().device)) GTEST_SKIP() << "this machine has no GPU";
  }
  // One under, at and over every length that the shape names, as one batch of mixed lengths.
  static std::vector<int64_t> EdgeLengths(const NsaShape& shape) {
    std::vector<int64_t> lengths = {1, 31, 32, 33};
    for (int64_t edge :
         {shape.span_stride, shape.span_tokens, shape.span_tokens + shape.span_stride,
          shape.block_tokens, 2 * shape.block_tokens, shape.window_tokens,
          shape.num_selected * shape.block_tokens}) {
      for (int64_t length : {edge - 1, edge, edge + 1}) {
        if (length >= 1) lengths.push_back(length);
      }
    }
    std::sort(lengths.begin(), lengths.end());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
    return lengths;
  }
};

TEST_P(AttentionTest, DecodeMatchesReferenceAtEveryEdgeLength) {
  const AttentionWorld world(GetParam(), EdgeLengths(GetParam().shape));
  const std::vector<TestToken> tokens = world.LastTokens();
  for (Branch branch : kBranches) {
    SCOPED_TRACE(static_cast<int>(branch));
    world.Check(branch, tokens, world.Run(branch, tokens));
  }
}

TEST_P(AttentionTest, PrefillMatchesReference) {
  const int64_t length = GetParam().shape.num_selected * GetParam().shape.block_tokens + 5;
  const AttentionWorld world(GetParam(), {length, 40});
  // Every fifth token keeps the reference affordable; the positions are not consecutive.
  std::vector<TestToken> tokens;
  for (const TestToken& token : world.AllTokens()) {
    if (token.position % 5 == 0 || token.sequence == 1) tokens.push_back(token);
  }
  for (Branch branch : kBranches) {
    SCOPED_TRACE(static_cast<int>(branch));
    world.Check(branch, tokens, world.Run(branch, tokens));
  }
}

TEST_P(AttentionTest, BitsDoNotDependOnTheBatch) {
  const NsaShape& shape = GetParam().shape;
  const AttentionWorld world(GetParam(), {2 * shape.block_tokens + 3, 37, shape.span_tokens});
  const std::vector<TestToken> tokens = world.AllTokens();
  for (Branch branch : kBranches) {
    SCOPED_TRACE(static_cast<int>(branch));
    const AttentionOutputs whole = world.Run(branch, tokens);
    for (int num_threads : {1, 2, 5}) {
      ThreadPool threads(num_threads);
      const AttentionOutputs again = world.Run(branch, tokens, &threads);
      ASSERT_TRUE(IsIdentical(again.out, whole.out)) << num_threads << " threads";
      ASSERT_TRUE(IsIdentical(again.lse, whole.lse)) << num_threads << " threads";
    }
    ThreadPool threads(2);
    for (size_t chunk : {size_t{1}, size_t{7}, size_t{33}}) {
      // Single tokens are sampled; every token is compared in the larger chunks.
      const size_t step = chunk == 1 ? 5 : chunk;
      for (size_t begin = 0; begin < tokens.size(); begin += step) {
        const size_t end = std::min(tokens.size(), begin + chunk);
        ExpectPart(world, branch, tokens, begin, end, chunk == 33 ? &threads : nullptr, whole);
      }
    }
  }
}

TEST_P(AttentionTest, PaddingIsZeroAndReadsNothing) {
  const AttentionWorld world(GetParam(), {33});
  // Padding may carry any sequence number, and its queries are NaN.
  const std::vector<TestToken> tokens = {{0, -1}, {0, 32}, {-1, -1}, {7, -1}, {0, 31}};
  for (Branch branch : kBranches) {
    SCOPED_TRACE(static_cast<int>(branch));
    ThreadPool threads(2);
    world.Check(branch, tokens, world.Run(branch, tokens, &threads));
    const std::vector<TestToken> only_padding(3, TestToken{-1, -1});
    world.Check(branch, only_padding, world.Run(branch, only_padding));
    EXPECT_EQ(world.Run(branch, {}).out.num_elements(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Geometries, AttentionTest, ::testing::ValuesIn(AttentionGeometries()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nsa::testing
