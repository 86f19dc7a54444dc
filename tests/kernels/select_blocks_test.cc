// SelectBlocks against the reference, its tie rule and the weights of the importance.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/nsa_reference.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

// The blocks of every (token, KV head), without the padding, which is checked here.
class Selection {
 public:
  Selection(const AttentionWorld& world, const std::vector<TestToken>& tokens,
            ThreadPool* threads = nullptr)
      : num_kv_heads_(world.geometry().num_kv_heads),
        blocks_(DType::kI32, {static_cast<int64_t>(tokens.size()), num_kv_heads_,
                              world.geometry().shape.num_selected}) {
    const AttentionOutputs cmp = world.Run(Branch::kCompressed, tokens, threads);
    Run(world, tokens, cmp.lse, threads);
  }

  BlockList Of(size_t token, int64_t kv_head) const {
    const int64_t num_selected = blocks_.view().dim(2);
    const int32_t* all = blocks_.data<int32_t>() +
                         (static_cast<int64_t>(token) * num_kv_heads_ + kv_head) * num_selected;
    BlockList list;
    for (int64_t i = 0; i < num_selected && all[i] != -1; ++i) list.push_back(all[i]);
    for (int64_t i = static_cast<int64_t>(list.size()); i < num_selected; ++i) {
      EXPECT_EQ(all[i], -1) << "padding must be at the end";
    }
    return list;
  }
  const Tensor& blocks() const { return blocks_; }

 private:
  void Run(const AttentionWorld& world, const std::vector<TestToken>& tokens, const Tensor& lse,
           ThreadPool* threads) {
    int64_t max_blocks = 1;
    for (const TestToken& token : tokens) {
      max_blocks = std::max(max_blocks, token.position / world.geometry().shape.block_tokens + 1);
    }
    const TestTokens map(tokens);
    const Tensor q = Converted(world.Queries(tokens), world.geometry().activation);
    const int64_t num_threads = threads == nullptr ? 1 : threads->num_threads();
    max_blocks = std::max(max_blocks, world.rows_cache().table().view().dim(1));
    const Tensor scratch(DType::kF32, {num_threads, max_blocks});
    OnDevice on(world.geometry().device, threads);
    SelectBlocks({.shape = world.geometry().shape,
                  .tokens = on(map.map()),
                  .q = on(q),
                  .rows = on(world.rows_cache().kv()),
                  .lse = on(lse),
                  .blocks = on(blocks_),
                  .scratch = on(scratch),
                  .softmax_scale = world.scale()},
                 on.stream());
    on.Fetch();
  }

  int64_t num_kv_heads_;
  Tensor blocks_;
};

class SelectBlocksTest : public ::testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override {
    if (!HasDevice(GetParam().device)) GTEST_SKIP() << "this machine has no GPU";
  }
};

TEST_P(SelectBlocksTest, MatchesReference) {
  const NsaShape& shape = GetParam().shape;
  const int64_t length = (shape.num_selected + 6) * shape.block_tokens + 5;
  const AttentionWorld world(GetParam(), {length, 33, length - 70});
  std::vector<TestToken> tokens;
  for (const TestToken& token : world.AllTokens()) {
    if (token.position % 13 == 0 || token.position > length - 20) tokens.push_back(token);
  }
  tokens.push_back({0, -1});
  ThreadPool threads(2);
  const Selection selection(world, tokens, &threads);
  const Tensor q = world.Queries(tokens);
  const int64_t per_group = GetParam().group_size * GetParam().d_k;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int64_t head = 0; head < GetParam().num_kv_heads; ++head) {
      const BlockList chosen = selection.Of(t, head);
      if (tokens[t].position < 0) {
        EXPECT_TRUE(chosen.empty());
        continue;
      }
      const float* group =
          q.data<float>() + (static_cast<int64_t>(t) * GetParam().num_kv_heads + head) * per_group;
      CheckChoice(world, tokens[t], head, group, chosen);
    }
  }
}

TEST_P(SelectBlocksTest, ChoiceDoesNotDependOnTheBatch) {
  const NsaShape& shape = GetParam().shape;
  const int64_t length = (shape.num_selected + 4) * shape.block_tokens + 1;
  const AttentionWorld world(GetParam(), {length, 200});
  std::vector<TestToken> tokens;
  for (const TestToken& token : world.AllTokens()) {
    if (token.position % 11 == 0) tokens.push_back(token);
  }
  const Selection whole(world, tokens);
  for (int num_threads : {1, 2, 5}) {
    ThreadPool threads(num_threads);
    ASSERT_TRUE(IsIdentical(Selection(world, tokens, &threads).blocks(), whole.blocks()));
    for (size_t t = 0; t < tokens.size(); ++t) {
      const Selection alone(world, {tokens[t]}, &threads);
      for (int64_t head = 0; head < GetParam().num_kv_heads; ++head) {
        ASSERT_EQ(alone.Of(0, head), whole.Of(t, head)) << t;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Geometries, SelectBlocksTest, ::testing::ValuesIn(AttentionGeometries()),
                         [](const auto& info) { return info.param.name; });

Geometry PaperGeometry(DeviceType device, int64_t group_size = 4) {
  return {"Paper", kPaperShape, 1, group_size, 8, 8, DType::kF32, device};
}

BlockList Choose(const AttentionWorld& world, int64_t position) {
  return Selection(world, {{0, static_cast<int32_t>(position)}}).Of(0, 0);
}

class SelectBlocksTieTest : public DeviceTest {};
class SelectBlocksEdgeTest : public DeviceTest {};
NSA_INSTANTIATE_ON_DEVICES(SelectBlocksTieTest);
NSA_INSTANTIATE_ON_DEVICES(SelectBlocksEdgeTest);

// Rows with equal keys have equal probabilities: every comparison is a tie.
TEST_P(SelectBlocksTieTest, LowerBlockIndexWins) {
  AttentionWorld world(PaperGeometry(GetParam()), {64 * 40});
  const int64_t num_rows = kPaperShape.NumRows(64 * 40);
  for (int64_t i = 0; i < num_rows; ++i) {
    for (int64_t c = 0; c < 8; ++c) world.rows_cache().SetK(0, i + 1, 0, c, 0.25);
  }
  // Block 0 lacks the row before its first and counts less than the others, but is forced.
  BlockList expected = {0};
  for (int64_t j = 1; j <= 13; ++j) expected.push_back(j);
  expected.push_back(38);
  expected.push_back(39);
  EXPECT_EQ(Choose(world, 64 * 40 - 1), expected);
}

// Probabilities that underflow to 0 tie at 0.
TEST_P(SelectBlocksTieTest, UnderflowToZeroFollowsTheTieRule) {
  Geometry geometry = PaperGeometry(GetParam(), 1);
  AttentionWorld world(geometry, {64 * 40});
  const Tensor q = world.Queries({{0, 64 * 40 - 1}});
  const int64_t num_rows = kPaperShape.NumRows(64 * 40);
  // Row 99 lies in blocks 24 and 25 and takes all the probability.
  for (int64_t i = 0; i < num_rows; ++i) {
    for (int64_t c = 0; c < 8; ++c) {
      world.rows_cache().SetK(0, i + 1, 0, c, (i == 99 ? 1e3 : -1e3) * q.At(c));
    }
  }
  BlockList expected = {0};
  for (int64_t j = 1; j <= 11; ++j) expected.push_back(j);
  for (int64_t j : {24, 25, 38, 39}) expected.push_back(j);
  EXPECT_EQ(Choose(world, 64 * 40 - 1), expected);
}

// Weights 1, 2, 2, 2, 1 of rows 4j-1 .. 4j+3: read off one row at a time from which of two blocks
// wins against a second row of known probability.
TEST(SelectBlocksWeightTest, PaperShapeWeighsOneTwoTwoTwoOne) {
  const int64_t weights[] = {1, 2, 2, 2, 1};
  for (int64_t k = 0; k < 5; ++k) EXPECT_EQ(kPaperShape.RowWeight(k), weights[k]) << k;
  EXPECT_EQ(kLlamaNsaShape.RowWeight(0), 1);
  const int64_t wide[] = {1, 2, 3, 4, 3, 2, 1};
  for (int64_t k = 0; k < 7; ++k) EXPECT_EQ(kWideSpanShape.RowWeight(k), wide[k]) << k;
}

TEST_P(SelectBlocksTieTest, TheKernelUsesTheWeights) {
  // One free place; block `low` and block `high` compete, each through one row whose probabilities
  // are in the ratio 1 : 1.5. The higher weight decides where the lower probability has it.
  Geometry geometry{"One", {32, 16, 64, 4, 1, 2, 64}, 1, 1, 1, 1, DType::kF32, GetParam()};
  constexpr int64_t kLow = 5, kHigh = 9, kPosition = 64 * 20 - 1;
  const int64_t weights[] = {1, 2, 2, 2, 1};
  for (int64_t k_low = 1; k_low < 4; ++k_low) {
    for (int64_t k_high = 0; k_high < 5; ++k_high) {
      AttentionWorld world(geometry, {kPosition + 1});
      const double q = world.Queries({{0, kPosition}}).At(0);
      for (int64_t i = 0; i < geometry.shape.NumRows(kPosition + 1); ++i) {
        world.rows_cache().SetK(0, i + 1, 0, 0, -50 / q);
      }
      world.rows_cache().SetK(0, 4 * kLow - 1 + k_low + 1, 0, 0, 0);
      world.rows_cache().SetK(0, 4 * kHigh - 1 + k_high + 1, 0, 0, std::log(1.5) / q);
      // A row at an edge belongs to the neighbouring block too, with the same weight; that one
      // has the lower index for k = 0 and loses nothing for k = 4.
      const int64_t winner = 2.0 > 1.5 * static_cast<double>(weights[k_high]) ? kLow
                             : k_high == 0                                    ? kHigh - 1
                                                                              : kHigh;
      EXPECT_EQ(Choose(world, kPosition), (BlockList{0, winner, 18, 19})) << k_low << " " << k_high;
    }
  }
}

// Heads are normalised before they are summed: a head with huge scores counts as much as another.
TEST_P(SelectBlocksTieTest, EveryHeadHasOneVote) {
  Geometry geometry{"Vote", {32, 16, 64, 4, 1, 2, 64}, 1, 3, 1, 1, DType::kF32, GetParam()};
  constexpr int64_t kPosition = 64 * 20 - 1;
  AttentionWorld world(geometry, {kPosition + 1});
  const std::vector<TestToken> tokens = {{0, kPosition}};
  Tensor q = world.Queries(tokens);
  q.Set(0, 1000);  // head 0 wants the row with the largest key, with all its weight
  q.Set(1, -10);   // heads 1 and 2 want the smallest
  q.Set(2, -10);
  const Tensor rows_lse(DType::kF32, {1, 3});
  for (int64_t i = 0; i < geometry.shape.NumRows(kPosition + 1); ++i) {
    world.rows_cache().SetK(0, i + 1, 0, 0, i == 4 * 6 ? 3 : i == 4 * 12 ? -3 : 0);
  }
  const TestTokens map(tokens);
  const Tensor out(DType::kF32, {1, 3, 1});
  const Tensor blocks(DType::kI32, {1, 1, 4}), scratch(DType::kF32, {1, 20});
  OnDevice on(GetParam());
  const TokenMap on_map = on(map.map());
  const PagedKv rows = on(world.rows_cache().kv());
  CompressedAttention({geometry.shape, on_map, on(q), rows, on(out), on(rows_lse), 1.0F},
                      on.stream());
  SelectBlocks({geometry.shape, on_map, on(q), rows, on(rows_lse), on(blocks), on(scratch), 1.0F},
               on.stream());
  on.Fetch();
  EXPECT_EQ(blocks.At(1), 12);
}

// Named edges of docs/nsa.md, section 3.

TEST_P(SelectBlocksEdgeTest, NoCompressedRowLeavesForcedBlocksAndLowerIndices) {
  // Spans of 64 that never completed: importance is 0 everywhere.
  Geometry geometry{"NoRow", {64, 64, 64, 2, 1, 1, 64}, 1, 2, 4, 4, DType::kF32, GetParam()};
  const AttentionWorld world(geometry, {63});
  EXPECT_EQ(Choose(world, 62), (BlockList{0}));
  EXPECT_EQ(Choose(world, 0), (BlockList{0}));
}

TEST_P(SelectBlocksEdgeTest, ForcedBlocksAreCutToTheSequenceWithoutDuplicates) {
  Geometry geometry{"Forced", {16, 16, 16, 5, 2, 3, 16}, 1, 2, 4, 4, DType::kF32, GetParam()};
  const AttentionWorld world(geometry, {16 * 9});
  for (int64_t b = 0; b < 5; ++b) {
    BlockList all(static_cast<size_t>(b + 1));
    for (int64_t j = 0; j <= b; ++j) all[static_cast<size_t>(j)] = j;
    EXPECT_EQ(Choose(world, 16 * b), all);
    EXPECT_EQ(Choose(world, 16 * b + 15), all);
  }
  // From here on the five forced blocks are the whole choice.
  EXPECT_EQ(Choose(world, 16 * 5), (BlockList{0, 1, 3, 4, 5}));
  EXPECT_EQ(Choose(world, 16 * 8), (BlockList{0, 1, 6, 7, 8}));
}

TEST_P(SelectBlocksEdgeTest, AllBlocksWhileTheyFit) {
  const AttentionWorld world(PaperGeometry(GetParam()), {16 * 64 + 1});
  EXPECT_EQ(Choose(world, 16 * 64 - 1).size(), 16U);
  const BlockList chosen = Choose(world, 16 * 64);
  EXPECT_EQ(chosen.size(), 16U);
  EXPECT_EQ(chosen.back(), 16);
}

TEST_P(SelectBlocksEdgeTest, IncompleteOwnBlockAndItsPredecessorAreForced) {
  // At position 64*20 the own block has one token, and the last row of block 19 (tokens 1264..1295)
  // is not complete.
  const AttentionWorld world(PaperGeometry(GetParam()), {64 * 21});
  for (int64_t position : {64 * 20, 64 * 20 + 14, 64 * 20 + 15}) {
    const BlockList chosen = Choose(world, position);
    EXPECT_EQ(chosen[15], 20);
    EXPECT_EQ(chosen[14], 19);
    EXPECT_EQ(chosen[0], 0);
  }
}

TEST_P(SelectBlocksEdgeTest, NoForcedBlocksAtAll) {
  Geometry geometry{"Free", {16, 16, 16, 3, 0, 0, 16}, 1, 2, 4, 4, DType::kF32, GetParam()};
  AttentionWorld world(geometry, {16 * 9 + 1});
  // The own block holds no row: with everything else at a tie, the lower blocks win.
  for (int64_t i = 0; i < 9; ++i) {
    for (int64_t c = 0; c < 4; ++c) world.rows_cache().SetK(0, i, 0, c, 0.5);
  }
  EXPECT_EQ(Choose(world, 16 * 9), (BlockList{0, 1, 2}));
}

}  // namespace
}  // namespace nsa::testing
