// The edges of docs/nsa.md, section 3, that concern the attentions; the gated sum.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/transformer.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/nsa_reference.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class AttentionEdgeTest : public DeviceTest {
 protected:
  static Geometry Small() {
    return {"Small", kSmallPaperShape, 2, 3, 16, 16, DType::kBF16, GetParam()};
  }
};
NSA_INSTANTIATE_ON_DEVICES(AttentionEdgeTest);

void ExpectEqualBranches(const AttentionWorld& world, const std::vector<TestToken>& tokens,
                         Branch a, Branch b) {
  const AttentionOutputs left = world.Run(a, tokens), right = world.Run(b, tokens);
  EXPECT_TRUE(IsIdentical(left.out, right.out));
  EXPECT_TRUE(IsIdentical(left.lse, right.lse));
}

TEST_P(AttentionEdgeTest, NoCompressedRowBeforeTheFirstSpanIsComplete) {
  const AttentionWorld world(Small(), {31});
  const AttentionOutputs outputs = world.Run(Branch::kCompressed, {{0, 0}, {0, 30}});
  EXPECT_TRUE(IsClose(outputs.out, std::vector<double>(2 * 6 * 16, 0.0)));
  EXPECT_TRUE(IsClose(outputs.lse, std::vector<double>(2 * 6, -kInfinity)));
}

TEST_P(AttentionEdgeTest, SpanThatEndsAtTheTokenIsVisible) {
  const AttentionWorld world(Small(), {32});
  // One row: the output is its value, whatever the query.
  const AttentionOutputs outputs = world.Run(Branch::kCompressed, {{0, 31}});
  for (int64_t head = 0; head < 6; ++head) {
    for (int64_t c = 0; c < 16; ++c) {
      EXPECT_FLOAT_EQ(outputs.out.At(head * 16 + c), world.rows_cache().V(0, 1, head / 3, c));
    }
  }
}

TEST_P(AttentionEdgeTest, SelectedEqualsDenseWhileAllBlocksFit) {
  const int64_t limit = kSmallPaperShape.num_selected * kSmallPaperShape.block_tokens;
  const AttentionWorld world(Small(), {limit + 1});
  ExpectEqualBranches(world, Chunk(0, 0, limit), Branch::kSelected, Branch::kDense);
  const std::vector<TestToken> beyond = {{0, static_cast<int32_t>(limit)}};
  EXPECT_FALSE(
      IsIdentical(world.Run(Branch::kSelected, beyond).out, world.Run(Branch::kDense, beyond).out));
}

TEST_P(AttentionEdgeTest, WindowEqualsDenseWhileItCoversEverything) {
  const int64_t limit = kSmallPaperShape.window_tokens;
  const AttentionWorld world(Small(), {limit + 1});
  ExpectEqualBranches(world, Chunk(0, 0, limit), Branch::kWindow, Branch::kDense);
  const std::vector<TestToken> beyond = {{0, static_cast<int32_t>(limit)}};
  EXPECT_FALSE(
      IsIdentical(world.Run(Branch::kWindow, beyond).out, world.Run(Branch::kDense, beyond).out));
}

TEST_P(AttentionEdgeTest, RingAndPagesGiveTheSameBits) {
  const Geometry geometry = Small();
  const int64_t w = geometry.shape.window_tokens, length = 3 * w + 7;
  AttentionWorld world(geometry, {length});
  // The smallest ring for steps of 4 tokens, filled with what the pages hold.
  std::mt19937 random(1);
  CacheLayout layout = world.tokens_cache().layout();
  layout.ring_rows = w + 4 - 1;
  TestCache ring(layout, {length}, random);
  for (int64_t row = length - layout.ring_rows; row < length; ++row) {
    for (int64_t head = 0; head < geometry.num_kv_heads; ++head) {
      for (int64_t c = 0; c < 16; ++c) {
        ring.SetK(0, row, head, c, world.tokens_cache().K(0, row, head, c));
        ring.SetV(0, row, head, c, world.tokens_cache().V(0, row, head, c));
      }
    }
  }
  const std::vector<TestToken> tokens = Chunk(0, length - 4, length);
  const TestTokens map(tokens);
  const Tensor q = world.Queries(tokens);
  Tensor out(DType::kF32, {4, 6, 16}), lse(DType::kF32, {4, 6});
  OnDevice on(GetParam());
  WindowAttention({w, on(map.map()), on(q), on(ring.kv()), on(out), on(lse), world.scale()},
                  on.stream());
  on.Fetch();
  const AttentionOutputs expected = world.Run(Branch::kWindow, tokens);
  EXPECT_TRUE(IsIdentical(out, expected.out));
  EXPECT_TRUE(IsIdentical(lse, expected.lse));
}

TEST_P(AttentionEdgeTest, TokensAfterTheQueryAreNotRead) {
  const Geometry geometry = Small();
  AttentionWorld world(geometry, {200});
  const std::vector<TestToken> tokens = {{0, 99}, {0, 100}};
  std::vector<AttentionOutputs> before;
  for (Branch branch : kBranches) before.push_back(world.Run(branch, tokens));
  for (int64_t row = 101; row < 200; ++row) {
    for (int64_t head = 0; head < geometry.num_kv_heads; ++head) {
      for (int64_t c = 0; c < 16; ++c) {
        for (TestCache* cache : {&world.tokens_cache(), &world.ring_cache()}) {
          cache->SetK(0, row, head, c, std::nan(""));
          cache->SetV(0, row, head, c, std::nan(""));
        }
      }
    }
  }
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(IsIdentical(world.Run(kBranches[i], tokens).out, before[i].out)) << i;
  }
  // What the later token alone sees cannot reach the earlier one through the shared tile.
  for (int64_t c = 0; c < 16; ++c) world.tokens_cache().SetV(0, 100, 0, c, std::nan(""));
  const Tensor out = world.Run(Branch::kDense, tokens).out;
  for (int64_t i = 0; i < 6 * 16; ++i) EXPECT_EQ(out.At(i), before[4].out.At(i)) << i;
  EXPECT_TRUE(std::isnan(out.At(6 * 16)));
}

TEST_P(AttentionEdgeTest, HugeScoresStayFinite) {
  AttentionWorld world({"Huge", kTinyShape, 1, 1, 4, 4, DType::kF32, GetParam()}, {50});
  const Tensor q = world.Queries({{0, 49}});
  for (int64_t row = 0; row < 50; ++row) {
    for (int64_t c = 0; c < 4; ++c) {
      world.tokens_cache().SetK(0, row, 0, c, (row == 7 ? 1e4 : -1e4) * q.At(c));
    }
  }
  const AttentionOutputs outputs = world.Run(Branch::kDense, {{0, 49}});
  for (int64_t c = 0; c < 4; ++c) {
    EXPECT_FLOAT_EQ(outputs.out.At(c), world.tokens_cache().V(0, 7, 0, c));
  }
  EXPECT_TRUE(std::isfinite(outputs.lse.At(0)));
}

class CombineBranchesTest : public DeviceTest {};
NSA_INSTANTIATE_ON_DEVICES(CombineBranchesTest);

TEST_P(CombineBranchesTest, AddsTheBranchesThroughTheirGates) {
  std::mt19937 random(9);
  const int64_t num_tokens = 33, num_heads = 3, d = 5, rows = num_tokens * num_heads;
  Tensor gates = RandomTensor(DType::kF32, {num_tokens, num_heads, 3}, random, 3);
  gates.Set(0, 200), gates.Set(1, -200);  // saturated
  Tensor cmp = RandomTensor(DType::kF32, {num_tokens, num_heads, d}, random);
  const Tensor sel = RandomTensor(DType::kF32, {num_tokens, num_heads, d}, random);
  const Tensor win = RandomTensor(DType::kF32, {num_tokens, num_heads, d}, random);
  std::vector<double> expected;
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = row * d; i < (row + 1) * d; ++i) {
      expected.push_back(sigmoid(gates.At(row * 3)) * cmp.At(i) +
                         sigmoid(gates.At(row * 3 + 1)) * sel.At(i) +
                         sigmoid(gates.At(row * 3 + 2)) * win.At(i));
    }
  }
  Tensor out(DType::kF32, {num_tokens, num_heads, d});
  ThreadPool threads(2);
  OnDevice on(GetParam(), &threads);
  CombineBranches({on(gates), on(cmp), on(sel), on(win), on(out)}, on.stream());
  CombineBranches({on(gates), on(cmp), on(sel), on(win), on(cmp)}, on.stream());
  on.Fetch();
  EXPECT_TRUE(IsClose(out, expected, {1e-6, 1e-6}));
  EXPECT_TRUE(IsIdentical(cmp, out)) << "in place";
}

TEST(ContractDeathTest, WrongShapesAndMissingPagesAreProgrammerErrors) {
  std::mt19937 random(4);
  const CacheLayout layout{.d_k = 4, .d_v = 4, .page_rows = 8};
  const TestCache cache(layout, {20}, random);
  const TestTokens map({{0, 24}});
  const Tensor q(DType::kF32, {1, 2, 4}), wrong(DType::kF32, {1, 2, 5});
  const Tensor out(DType::kF32, {1, 2, 4}), lse(DType::kF32, {1, 2});
  EXPECT_DEATH(DenseAttention({map.map(), wrong, cache.kv(), out, lse, 1}, {}),
               "q is f32\\[1, 2, 5\\]");
  EXPECT_DEATH(DenseAttention({map.map(), q, cache.kv(), wrong, lse, 1}, {}), "out is");
  const TestTokens unknown({{3, 0}});
  EXPECT_DEATH(DenseAttention({unknown.map(), q, cache.kv(), out, lse, 1}, {}), "sequence 3 of 1");
  // Row 24 would be in the fourth page, of which the table of three wraps to the first: no page is
  // missing, but a table with a hole is refused.
  cache.table().data<int32_t>()[1] = -1;
  EXPECT_DEATH(DenseAttention({map.map(), q, cache.kv(), out, lse, 1}, {}), "page -1 of");
}

TEST(ContractDeathTest, CudaStreamWithoutCudaNamesTheOperation) {
  if (BuildDevices().size() > 1) GTEST_SKIP() << "this build has CUDA";
  const Tensor x(DType::kF32, {1, 2}), y(DType::kF32, {1, 1});
  EXPECT_DEATH(SwiGlu({x, y}, {.device = DeviceType::kCuda}), "SwiGlu.*no CUDA");
}

}  // namespace
}  // namespace nsa::testing
