// SparseAttention: on the CPU the bits of the operations that it is made of; on a GPU, through
// whatever kernels it has, the CPU's results for steps of decode tokens, tiles and padding.

#include <gtest/gtest.h>

#include <limits>
#include <utility>

#include "kernels/kv_store.h"
#include "kernels/nsa.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/sparse_step.h"
#include "tests/kernels/step.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

TEST_P(SparseAttentionTest, DecodeTokens) {
  const NsaShape& shape = GetParam().shape;
  std::vector<int64_t> lengths = {Long(),
                                  1,
                                  shape.span_tokens - 1,
                                  shape.span_tokens,
                                  shape.num_selected * shape.block_tokens,
                                  shape.num_selected * shape.block_tokens + 1,
                                  shape.window_tokens,
                                  shape.window_tokens + 1,
                                  31,
                                  32,
                                  33,
                                  Long() - 64};
  const AttentionWorld world(GetParam(), lengths);
  Step step;
  for (const TestToken& token : world.LastTokens()) {
    step.AddDecode(token);
    if (token.sequence == 3) step.AddDecode({0, -1});
  }
  step.AddDecode({0, -1});
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
  // Alone or batched, a token's bits are the same.
  for (size_t t = 0; t < step.tokens().size(); t += 3) {
    Step alone;
    alone.AddDecode(step.tokens()[t]);
    const Outputs single = RunStep(world, alone, nullptr);
    const Outputs batched = outputs.Pick({static_cast<int64_t>(t)});
    ASSERT_TRUE(IsIdentical(single.blocks, batched.blocks)) << "token " << t;
    ASSERT_TRUE(IsIdentical(single.out, batched.out)) << "token " << t;
  }
}

// Row `row` of sequence 0, taken out of a cache: there it is NaN until Store has put it back.
class MovedRow {
 public:
  MovedRow(const Geometry& g, TestCache& cache, int64_t row)
      : cache_(cache),
        map_({{0, static_cast<int32_t>(row)}}),
        num_keys_(g.num_kv_heads * g.d_k),
        inv_freq_(DType::kF32, {g.d_k / 2}),
        q_(g.activation, {1, g.num_kv_heads, g.d_k}),
        packed_(g.activation, {1, num_keys_ + g.num_kv_heads * g.d_v}) {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    for (int64_t head = 0; head < g.num_kv_heads; ++head) {
      for (int64_t c = 0; c < g.d_k; ++c) {
        packed_.Set(head * g.d_k + c, cache.K(0, row, head, c));
        cache.SetK(0, row, head, c, kNan);
      }
      for (int64_t c = 0; c < g.d_v; ++c) {
        packed_.Set(num_keys_ + head * g.d_v + c, cache.V(0, row, head, c));
        cache.SetV(0, row, head, c, kNan);
      }
    }
  }
  void Store(OnDevice& on) const {
    StoreProjectionsArgs args{.tokens = on(map_.map()),
                              .packed = on(packed_),
                              .inv_freq = on(inv_freq_),
                              .num_streams = 1,
                              .q = on(q_)};
    args.streams[0] = {.v_column = num_keys_, .rotate_k = false, .kv = on(cache_.kv())};
    StoreProjections(args, on.stream());
  }

 private:
  TestCache& cache_;
  TestTokens map_;
  int64_t num_keys_;
  Tensor inv_freq_, q_, packed_;
};

TEST_P(SparseAttentionTest, SeesTheRowsOfItsOwnStep) {
  const NsaShape& shape = GetParam().shape;
  const int64_t first = shape.num_selected * shape.block_tokens;
  for (int64_t length = first; length <= first + 65 * shape.span_stride;
       length += 13 * shape.span_stride) {
    const int64_t num_tokens =
        (length - shape.span_tokens) / shape.span_stride * shape.span_stride + shape.span_tokens;
    AttentionWorld world(GetParam(), {num_tokens});
    Step step;
    step.AddDecode({0, static_cast<int32_t>(num_tokens) - 1});
    const Outputs expected = RunStep(world, step, nullptr);
    const int64_t new_row = shape.NumRows(num_tokens) - 1 + shape.row_offset();
    const MovedRow sel(GetParam(), world.tokens_cache(), num_tokens - 1);
    const MovedRow win(GetParam(), world.ring_cache(), num_tokens - 1);
    const MovedRow row(GetParam(), world.rows_cache(), new_row);
    const Outputs outputs =
        RunStep(world, step, nullptr, [&](OnDevice& on, const SparseAttentionArgs& args) {
          sel.Store(on);
          win.Store(on);
          row.Store(on);
          SparseAttention(args, on.stream());
        });
    EXPECT_TRUE(IsIdentical(outputs.out, expected.out)) << num_tokens;
    EXPECT_TRUE(IsIdentical(outputs.blocks, expected.blocks)) << num_tokens;
  }
}

TEST_P(SparseAttentionTest, Tiles) {
  const int64_t length = Long();
  const AttentionWorld world(GetParam(), {length, 70, length});
  Step step;
  step.AddChunk(0, 0, length);
  step.AddChunk(1, 3, 70);
  step.AddChunk(2, length - 200, length - 1);
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
}

TEST_P(SparseAttentionTest, DecodeTokensAndTiles) {
  const int64_t length = Long();
  const AttentionWorld world(GetParam(), {length, length - 1, 40, length});
  Step step;
  step.AddDecode({2, 39});
  step.AddDecode({0, static_cast<int32_t>(length) - 1});
  step.AddDecode({0, -1});
  step.AddChunk(3, length - 130, length);
  step.AddChunk(1, length - 67, length - 1);
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
  const Outputs again = RunStep(world, step, nullptr);
  EXPECT_TRUE(IsIdentical(again.out, outputs.out));
  EXPECT_TRUE(IsIdentical(again.blocks, outputs.blocks));
}

INSTANTIATE_TEST_SUITE_P(Geometries, SparseAttentionTest, ::testing::ValuesIn(StepGeometries()),
                         [](const auto& info) { return info.param.name; });

TEST(SparseAttentionCpuTest, HasTheBitsOfItsOperations) {
  for (const Geometry& geometry : StepGeometries()) {
    if (geometry.device != DeviceType::kCpu) continue;
    const AttentionWorld world(geometry, {500, 40});
    Step step;
    step.AddDecode({1, 39});
    step.AddChunk(0, 400, 500);
    ThreadPool threads(3);
    const Outputs outputs = RunStep(world, step, &threads);
    if (geometry.dtype == DType::kF32) {
      EXPECT_TRUE(IsIdentical(outputs.out, Combined(world, step, outputs.blocks)));
    }
    const Outputs again = RunStep(world, step, &threads);
    EXPECT_TRUE(IsIdentical(again.out, outputs.out));
  }
}

}  // namespace
}  // namespace nsa::testing
