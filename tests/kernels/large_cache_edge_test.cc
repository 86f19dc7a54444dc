// A cache of more than 2^31 elements: its last pages give the bits of its first. On a GPU only, and
// only where it has the memory.

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kv_store.h"
#include "kernels/nsa.h"
#include "tests/kernels/nsa_cache.h"
#include "tests/kernels/step.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr NsaShape kShape{32, 16, 64, 2, 1, 1, 100};
constexpr int64_t kHeads = 4, kD = 128, kPageRows = 64, kNumTokens = 300;
constexpr int64_t kPagesPerSequence = 5;
// Beyond 2^31 elements of K, and 2^32 bytes.
constexpr int64_t kNumPages = (int64_t{1} << 31) / (kPageRows * kD) + 64;

struct LargeOutputs {
  Tensor dense{DType::kF32, {kNumTokens, kHeads, kD}};
  Tensor selected{DType::kF32, {kNumTokens, kHeads, kD}};
  Tensor window{DType::kF32, {kNumTokens, kHeads, kD}};
  Tensor compressed{DType::kF32, {kNumTokens, kHeads, kD}};
};

Tensor PageTable(int64_t first_page) {
  std::vector<int32_t> pages;
  for (int64_t i = 0; i < kPagesPerSequence; ++i) {
    pages.push_back(static_cast<int32_t>(first_page + i));
  }
  return I32Tensor(pages);
}

// Stores one sequence in pages [first_page, ..) and attends it.
LargeOutputs Attend(const PagedKv& cache, const PagedKv& rows, int64_t first_page) {
  OnDevice on(DeviceType::kCuda);
  std::mt19937 random(5);
  const Tensor table = PageTable(first_page);
  const TensorView table_view = on(table).Reshape({1, kPagesPerSequence});
  const PagedKv kv{cache.k, cache.v, table_view}, row_kv{rows.k, rows.v, table_view};
  const TestTokens map(Chunk(0, 0, kNumTokens));
  const Tensor packed = RandomTensor(DType::kBF16, {kNumTokens, (kHeads + 2) * kD}, random);
  const Tensor inv_freq = RandomTensor(DType::kF32, {kD / 2}, random);
  const Tensor q(DType::kBF16, {kNumTokens, kHeads, kD});
  Tensor lse(DType::kF32, {kNumTokens, kHeads}), blocks(DType::kI32, {kNumTokens, 1, 2});
  for (int64_t t = 0; t < kNumTokens; ++t) {
    blocks.Set(2 * t, 0);
    const int64_t own_block = t / kPageRows;
    blocks.Set(2 * t + 1, own_block == 0 ? -1.0 : static_cast<double>(own_block));
  }
  const TokenMap tokens = on(map.map());
  StoreProjections(
      {.tokens = tokens,
       .packed = on(packed),
       .inv_freq = on(inv_freq),
       .num_streams = 1,
       .streams = {KvStream{.k_column = kHeads * kD, .v_column = (kHeads + 1) * kD, .kv = kv}},
       .q = on(q)},
      on.stream());
  CompressRows({.shape = kShape, .tokens = tokens, .raw = kv, .rows = row_kv}, on.stream());
  LargeOutputs outputs;
  const TensorView q_view = on(q), lse_view = on(lse);
  DenseAttention({tokens, q_view, kv, on(outputs.dense), lse_view, 0.1F}, on.stream());
  SelectedAttention({kShape, tokens, q_view, kv, on(blocks), on(outputs.selected), lse_view, 0.1F},
                    on.stream());
  WindowAttention({100, tokens, q_view, kv, on(outputs.window), lse_view, 0.1F}, on.stream());
  CompressedAttention({kShape, tokens, q_view, row_kv, on(outputs.compressed), lse_view, 0.1F},
                      on.stream());
  on.Fetch();
  return outputs;
}

constexpr int64_t kGroup = 16;
constexpr NsaShape kSparseShape{32, 16, 64, 3, 1, 1, 100};

struct SparseOutputs {
  Tensor out{DType::kBF16, {kNumTokens, kGroup, kD}};
  Tensor dense{DType::kBF16, {kNumTokens, kGroup, kD}};
  Tensor blocks{DType::kI32, {kNumTokens, 1, kSparseShape.num_selected}};
};

// The same for the kernels that a GPU has for groups of 16 heads: a decode token and tiles of what
// Attend has stored in the pages.
SparseOutputs AttendInGroups(const PagedKv& cache, const PagedKv& rows, int64_t first_page) {
  OnDevice on(DeviceType::kCuda);
  std::mt19937 random(6);
  Step step;
  step.AddDecode({0, kNumTokens - 1});
  step.AddChunk(0, 0, kNumTokens - 1);
  const Tensor table = PageTable(first_page), tiles = step.Tiles();
  const TensorView table_view = on(table).Reshape({1, kPagesPerSequence});
  const PagedKv kv{cache.k, cache.v, table_view}, row_kv{rows.k, rows.v, table_view};
  const TestTokens map(step.tokens());
  TokenMap tokens = on(map.map());
  tokens.num_decode_tokens = step.num_decode_tokens();
  tokens.tiles = on(tiles);
  const Tensor q = RandomTensor(DType::kBF16, {kNumTokens, kGroup, kD}, random);
  const Tensor gates = RandomTensor(DType::kF32, {kNumTokens, kGroup, 3}, random);
  const Tensor lse(DType::kF32, {kNumTokens, kGroup});
  const SparseAttentionExtent extent{.shape = kSparseShape,
                                     .num_tokens = kNumTokens,
                                     .num_seqs = 1,
                                     .max_pages = kPagesPerSequence,
                                     .num_heads = kGroup,
                                     .num_kv_heads = 1,
                                     .d_k = kD,
                                     .d_v = kD,
                                     .activation = DType::kBF16,
                                     .cache_dtype = DType::kBF16};
  SparseOutputs outputs;
  const TensorView q_view = on(q);
  SparseAttention({.shape = kSparseShape,
                   .tokens = tokens,
                   .q = q_view,
                   .gate_logits = on(gates),
                   .rows = row_kv,
                   .sel = kv,
                   .win = kv,
                   .out = on(outputs.out),
                   .blocks = on(outputs.blocks),
                   .scratch = on.Scratch(SparseAttentionScratchBytes(extent, on.stream())),
                   .softmax_scale = 0.1F},
                  on.stream());
  DenseAttention({tokens, q_view, kv, on(outputs.dense), on(lse), 0.1F}, on.stream());
  on.Fetch();
  return outputs;
}

TEST(LargeCacheTest, OffsetsAre64Bit) {
  constexpr int64_t kBytes = kNumPages * kPageRows * kD * 2;
  if (FreeDeviceBytes(DeviceType::kCuda) < 5 * kBytes / 2) {
    GTEST_SKIP() << "needs a GPU with " << 5 * kBytes / 2 << " bytes of free memory";
  }
  OnDevice memory(DeviceType::kCuda);
  const auto cache = [&](int64_t page_rows) {
    const int64_t num_bytes = kNumPages * page_rows * kD * 2;
    return TensorView(memory.Scratch(num_bytes).raw(), DType::kBF16, {kNumPages, 1, page_rows, kD});
  };
  const PagedKv kv{cache(kPageRows), cache(kPageRows), {}};
  const PagedKv rows{cache(kShape.rows_per_page()), cache(kShape.rows_per_page()), {}};
  const LargeOutputs low = Attend(kv, rows, 1);
  const LargeOutputs high = Attend(kv, rows, kNumPages - kPagesPerSequence);
  EXPECT_FALSE(std::isnan(low.dense.At(0)));
  EXPECT_TRUE(IsIdentical(high.dense, low.dense));
  EXPECT_TRUE(IsIdentical(high.selected, low.selected));
  EXPECT_TRUE(IsIdentical(high.window, low.window));
  EXPECT_TRUE(IsIdentical(high.compressed, low.compressed));
  const SparseOutputs low_groups = AttendInGroups(kv, rows, 1);
  const SparseOutputs high_groups = AttendInGroups(kv, rows, kNumPages - kPagesPerSequence);
  EXPECT_FALSE(std::isnan(low_groups.out.At(0)));
  EXPECT_TRUE(IsIdentical(high_groups.out, low_groups.out));
  EXPECT_TRUE(IsIdentical(high_groups.dense, low_groups.dense));
  EXPECT_TRUE(IsIdentical(high_groups.blocks, low_groups.blocks));
}

}  // namespace
}  // namespace nsa::testing
