#include "engine/batch_builder.h"

#include "gtest/gtest.h"

namespace nsa {
namespace {

using Ids = std::vector<int32_t>;

Sequence MakeSequence(Ids tokens, int64_t num_cached_tokens, std::vector<PageId> pages,
                      int32_t slot) {
  Sequence sequence({.prompt = std::move(tokens)}, nullptr, absl::UnixEpoch());
  sequence.num_cached_tokens = num_cached_tokens;
  sequence.pages = std::move(pages);
  sequence.slot = slot;
  return sequence;
}

TEST(BatchBuilderTest, PacksADecodeAChunkAndAFirstPrompt) {
  Sequence decode = MakeSequence({10, 11, 12, 13, 14}, 4, {7, 3, 5}, 2);
  Sequence middle = MakeSequence({20, 21, 22, 23}, 1, {1, 0}, 0);
  Sequence whole = MakeSequence({30, 31}, 0, {4}, 1);
  decode.request.sampling.seed = 99;
  decode.request.num_top_logprobs = 3;
  whole.request.sampling.temperature = 0;
  BatchBuilder builder;
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &decode, .num_tokens = 1, .samples = true},
                                {.sequence = &middle, .num_tokens = 2, .samples = false},
                                {.sequence = &whole, .num_tokens = 2, .samples = true}}});
  EXPECT_EQ(batch.num_seqs, 3);
  EXPECT_EQ(batch.max_pages, 3);
  EXPECT_EQ(batch.token_ids, (Ids{14, 21, 22, 30, 31}));
  EXPECT_EQ(batch.token_sequence, (Ids{0, 1, 1, 2, 2}));
  EXPECT_EQ(batch.token_position, (Ids{4, 1, 2, 0, 1}));
  EXPECT_EQ(batch.page_table, (Ids{7, 3, 5, 1, 0, -1, 4, -1, -1}));
  EXPECT_EQ(batch.slots, (Ids{2, 0, 1}));
  EXPECT_EQ(batch.num_decode_tokens, 1);
  EXPECT_EQ(batch.tiles, (Ids{1, 1, 2, 1, 2, 3, 2, 0}));
  EXPECT_EQ(batch.logit_tokens, (Ids{0, 4}));
  ASSERT_EQ(batch.num_rows(), 2);
  EXPECT_EQ(batch.rows[0].params, decode.request.sampling);
  EXPECT_EQ(batch.rows[0].position, 5);
  EXPECT_EQ(batch.rows[0].num_top_logprobs, 3);
  EXPECT_EQ(batch.rows[1].params, whole.request.sampling);
  EXPECT_EQ(batch.rows[1].position, 2);
  EXPECT_EQ(batch.rows[1].num_top_logprobs, -1);
}

TEST(BatchBuilderTest, TilesEndAtAlignedPositionsAndFollowTheDecodeTokens) {
  Sequence first = MakeSequence(Ids(200, 7), 199, {0, 1, 2, 3}, 0);
  Sequence second = MakeSequence(Ids(300, 7), 60, {4, 5, 6, 7}, 1);
  Sequence third = MakeSequence(Ids(11, 7), 10, {8}, 2);  // one token, but behind a chunk
  BatchBuilder builder;
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &first, .num_tokens = 1, .samples = true},
                                {.sequence = &second, .num_tokens = 70, .samples = false},
                                {.sequence = &third, .num_tokens = 1, .samples = true}}});
  EXPECT_EQ(batch.num_decode_tokens, 1);
  EXPECT_EQ(batch.tiles, (Ids{1, 1, 4, 60, 1, 5, 64, 64, 1, 69, 2, 128, 2, 71, 1, 10}));
}

TEST(BatchBuilderTest, NamesATokenInFlightByItsRow) {
  Sequence decode = MakeSequence({10, 11, 12}, 3, {7}, 0);
  decode.num_pending_tokens = 1;
  decode.pending_row = 5;
  Sequence again = MakeSequence({20, 21}, 0, {8}, 1);  // preempted meanwhile
  again.num_pending_tokens = 1;
  again.pending_row = 0;
  BatchBuilder builder;
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &decode, .num_tokens = 1, .samples = true},
                                {.sequence = &again, .num_tokens = 3, .samples = true}}});
  EXPECT_EQ(batch.token_ids, (Ids{Batch::TokenOfRow(5), 20, 21, Batch::TokenOfRow(0)}));
  EXPECT_EQ(batch.token_position, (Ids{3, 0, 1, 2}));
  EXPECT_EQ(batch.rows[0].position, 4);
  EXPECT_EQ(batch.rows[1].position, 3);
}

TEST(BatchBuilderTest, KeepsNothingOfTheBatchBefore) {
  Sequence large = MakeSequence({1, 2, 3}, 0, {0, 1, 2}, 0);
  Sequence small = MakeSequence({4}, 0, {3}, 1);
  BatchBuilder builder;
  builder.Build({.chunks = {{.sequence = &large, .num_tokens = 3, .samples = true}}});
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &small, .num_tokens = 1, .samples = false}}});
  EXPECT_EQ(batch.num_seqs, 1);
  EXPECT_EQ(batch.token_ids, (Ids{4}));
  EXPECT_EQ(batch.page_table, (Ids{3}));
  EXPECT_EQ(batch.slots, (Ids{1}));
  EXPECT_EQ(batch.num_rows(), 0);
  EXPECT_TRUE(batch.rows.empty());
  EXPECT_EQ(batch.num_decode_tokens, 1);
  EXPECT_TRUE(batch.tiles.empty());
}

}  // namespace
}  // namespace nsa
