// SparseAttention where numbers are hard: scores of any size, equal ones, and NaN.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/nsa.h"
#include "tests/kernels/sparse_step.h"
#include "tests/support/compare.h"

namespace nsa::testing {
namespace {

class SparseAttentionEdgeTest : public SparseAttentionTest {};

// Scores whose exponentials neither fit a float nor leave anything of one, to both sides of 0: all,
// or few among small ones, which kernels that look for no maximum after the first rows run into.
TEST_P(SparseAttentionEdgeTest, LargeScores) {
  const Geometry& g = GetParam();
  const int64_t length = Long();
  const KeyChange changes[] = {{25, 0, 1}, {2, 40, 1}, {60, 0, 97}};
  for (const KeyChange& change : changes) {
    AttentionWorld world(g, {length});
    world.rows_cache().ChangeKeys(g.shape.NumRows(length) + g.shape.row_offset(), change);
    world.tokens_cache().ChangeKeys(length, change);
    world.ring_cache().ChangeKeys(length, change);
    Step step;
    step.AddDecode({0, static_cast<int32_t>(length) - 1});
    step.AddChunk(0, 0, length - 1);
    const Outputs outputs = RunStep(world, step, nullptr);
    CheckBlocks(world, step, outputs.blocks);
    CheckOutputs(world, step, outputs);
  }
}

// Far more blocks of one importance than are chosen: kernels that narrow the choice down to the few
// above a bound get nearly all of them.
TEST_P(SparseAttentionEdgeTest, EqualKeys) {
  const Geometry& g = GetParam();
  const int64_t length = (g.shape.num_selected + 70) * g.shape.block_tokens + 7, hot_block = 40;
  AttentionWorld world(g, {length});
  const int64_t page_rows = g.shape.rows_per_page();
  const int64_t num_rows = g.shape.NumRows(length) + g.shape.row_offset();
  for (int64_t row = g.shape.row_offset(); row < num_rows; ++row) {
    const double key = row / page_rows == hot_block ? 4 : 0;
    for (int64_t head = 0; head < g.num_kv_heads; ++head) {
      for (int64_t c = 0; c < g.d_k; ++c) world.rows_cache().SetK(0, row, head, c, key);
    }
  }
  Step step;
  step.AddDecode({0, static_cast<int32_t>(length) - 1});
  step.AddChunk(0, length - 9, length - 2);
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
  const bool is_forced = g.shape.num_selected == g.shape.num_initial + g.shape.num_local;
  if (g.group_size < 16 || is_forced) return;
  // Some head of 16 sees the one with other keys before all others.
  const int32_t* chosen = outputs.blocks.data<int32_t>();
  EXPECT_EQ(std::count(chosen, chosen + g.shape.num_selected, hot_block), 1);
}

// Rows in sixths of the sequence, the last one first, whose scores grow: what kernels take for a
// row's largest score is not, several times and by more than a float's or a half's range.
TEST_P(SparseAttentionEdgeTest, GrowingScores) {
  const Geometry& g = GetParam();
  const int64_t length = 400 * g.shape.span_stride + 7;
  const int64_t num_rows = g.shape.NumRows(length) + g.shape.row_offset();
  const bool on_hopper_chain =
      g.device == DeviceType::kCuda && g.activation != DType::kF32 && g.group_size == 16;
  for (const std::vector<double>& factors :
       {std::vector<double>{1, 8, 30, 30, 32, 32}, {1, 3, 6, 10, 14, 18}}) {
    AttentionWorld world(g, {length});
    for (int64_t row = g.shape.row_offset(); row < num_rows; ++row) {
      const double factor = factors[static_cast<size_t>((num_rows - 1 - row) * 6 / num_rows)];
      for (int64_t i = 0; i < g.num_kv_heads * g.d_k; ++i) {
        const int64_t head = i / g.d_k, c = i % g.d_k;
        world.rows_cache().SetK(0, row, head, c, world.rows_cache().K(0, row, head, c) * factor);
      }
    }
    Step step, cut;
    step.AddDecode({0, static_cast<int32_t>(length) - 1});
    step.AddChunk(0, length - 70, length - 1);
    cut.AddDecode({0, static_cast<int32_t>(length) - 1});
    cut.AddChunk(0, length - 70, length - 9);
    cut.AddChunk(0, length - 9, length - 1);
    const Outputs outputs = RunStep(world, step, nullptr);
    CheckBlocks(world, step, outputs.blocks);
    CheckOutputs(world, step, outputs);
    if (!on_hopper_chain) continue;
    const Outputs same = RunStep(world, cut, nullptr);
    EXPECT_TRUE(IsIdentical(same.out, outputs.out));
    EXPECT_TRUE(IsIdentical(same.blocks, outputs.blocks));
  }
}

// A NaN in K of a row leaves the choice of its KV head valid, and the other head as it was.
TEST_P(SparseAttentionEdgeTest, NotANumber) {
  const Geometry& g = GetParam();
  for (const int64_t num_free : {5, 70}) {  // blocks beside the chosen ones
    const int64_t length = (g.shape.num_selected + num_free) * g.shape.block_tokens + 7;
    AttentionWorld world(g, {length});
    Step step;
    step.AddDecode({0, static_cast<int32_t>(length) - 1});
    step.AddChunk(0, length - 20, length - 1);
    const Outputs expected = RunStep(world, step, nullptr);
    world.rows_cache().SetK(0, g.shape.row_offset() + 2, 0, 0, std::nan(""));
    const Outputs actual = RunStep(world, step, nullptr);
    for (int64_t item = 0; item < step.num_tokens() * g.num_kv_heads; ++item) {
      const int64_t first = item * g.shape.num_selected;
      const int32_t* blocks = actual.blocks.data<int32_t>() + first;
      if (item % g.num_kv_heads != 0) {
        ASSERT_TRUE(std::equal(blocks, blocks + g.shape.num_selected,
                               expected.blocks.data<int32_t>() + first));
        continue;
      }
      const int64_t position = step.tokens()[static_cast<size_t>(item / g.num_kv_heads)].position;
      ASSERT_TRUE(std::is_sorted(blocks, blocks + g.shape.num_selected, std::less_equal<>()));
      ASSERT_GE(blocks[0], 0);
      ASSERT_EQ(blocks[g.shape.num_selected - 1], position / g.shape.block_tokens);
    }
    for (int64_t i = 0; i < actual.out.num_elements(); ++i) {
      const int64_t head = i / g.d_v % world.num_heads();
      if (head >= g.group_size) {
        ASSERT_EQ(actual.out.At(i), expected.out.At(i));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Geometries, SparseAttentionEdgeTest, ::testing::ValuesIn(StepGeometries()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nsa::testing
