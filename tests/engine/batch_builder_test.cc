#include "engine/batch_builder.h"

#include "gtest/gtest.h"
#include "tests/support/byte_constraint.h"

namespace nsa {
namespace {

using Ids = std::vector<int32_t>;

// Pages of 2 tokens, tables of 3 recent pages.
constexpr ExecutorLimits kLimits{
    .page_tokens = 2, .lookback_tokens = 2, .max_num_seqs = 3, .max_chunk_tokens = 3};

Sequence MakeSequence(Ids tokens, int64_t num_cached_tokens, std::vector<PageId> pages,
                      std::deque<PageId> recent_pages, int64_t first_recent_page = 0) {
  Sequence sequence({.prompt = std::move(tokens)}, nullptr, absl::UnixEpoch());
  sequence.num_cached_tokens = num_cached_tokens;
  sequence.pages = std::move(pages);
  sequence.recent_pages = std::move(recent_pages);
  sequence.first_recent_page = first_recent_page;
  return sequence;
}

TEST(BatchBuilderTest, PacksADecodeAChunkAndAFirstPrompt) {
  Sequence decode = MakeSequence({10, 11, 12, 13, 14}, 4, {7, 3, 5}, {40, 41}, 1);
  Sequence middle = MakeSequence({20, 21, 22, 23}, 1, {1, 0}, {42});
  Sequence whole = MakeSequence({30, 31}, 0, {4}, {43});
  decode.request.sampling.seed = 99;
  decode.request.num_top_logprobs = 3;
  whole.request.sampling.temperature = 0;
  BatchBuilder builder(kLimits);
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
  EXPECT_EQ(batch.recent_columns, 3);
  EXPECT_EQ(batch.recent_table, (Ids{-1, 40, 41, 42, -1, -1, 43, -1, -1}));
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
  Sequence first = MakeSequence(Ids(200, 7), 199, {0, 1, 2, 3}, {});
  Sequence second = MakeSequence(Ids(300, 7), 60, {4, 5, 6, 7}, {});
  Sequence third = MakeSequence(Ids(11, 7), 10, {8}, {});  // one token, but behind a chunk
  BatchBuilder builder(kLimits);
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &first, .num_tokens = 1, .samples = true},
                                {.sequence = &second, .num_tokens = 70, .samples = false},
                                {.sequence = &third, .num_tokens = 1, .samples = true}}});
  EXPECT_EQ(batch.num_decode_tokens, 1);
  EXPECT_EQ(batch.tiles, (Ids{1, 1, 4, 60, 1, 5, 64, 64, 1, 69, 2, 128, 2, 71, 1, 10}));
}

TEST(BatchBuilderTest, NamesATokenInFlightByItsRow) {
  Sequence decode = MakeSequence({10, 11, 12}, 3, {7}, {});
  decode.num_pending_tokens = 1;
  decode.pending_row = 5;
  Sequence again = MakeSequence({20, 21}, 0, {8}, {});  // preempted meanwhile
  again.num_pending_tokens = 1;
  again.pending_row = 0;
  BatchBuilder builder(kLimits);
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &decode, .num_tokens = 1, .samples = true},
                                {.sequence = &again, .num_tokens = 3, .samples = true}}});
  EXPECT_EQ(batch.token_ids, (Ids{Batch::TokenOfRow(5), 20, 21, Batch::TokenOfRow(0)}));
  EXPECT_EQ(batch.token_position, (Ids{3, 0, 1, 2}));
  EXPECT_EQ(batch.rows[0].position, 4);
  EXPECT_EQ(batch.rows[1].position, 3);
}

TEST(BatchBuilderTest, ScoredTokensHaveRowsOfTheTokensBeforeThem) {
  Sequence decode = MakeSequence({10, 11}, 1, {7}, {});
  Sequence scored = MakeSequence({20, 21, 22, 23, 24}, 2, {8, 9, 4}, {});
  scored.request.scores_prompt = true;
  scored.request.num_top_logprobs = 2;
  BatchBuilder builder(kLimits);
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &decode, .num_tokens = 1, .samples = true},
                                {.sequence = &scored,
                                 .num_tokens = 3,
                                 .samples = true,
                                 .first_scored = 3,
                                 .num_scored = 2}}});
  EXPECT_EQ(batch.logit_tokens, (Ids{0, 1, 2, 3}));
  ASSERT_EQ(batch.rows.size(), 4U);
  EXPECT_EQ(batch.rows[0].scored_token, -1);
  EXPECT_EQ(batch.rows[1].scored_token, 23);
  EXPECT_EQ(batch.rows[1].position, 3);
  EXPECT_EQ(batch.rows[1].num_top_logprobs, 2);
  EXPECT_EQ(batch.rows[2].scored_token, 24);
  EXPECT_EQ(batch.rows[3].scored_token, -1);
  EXPECT_EQ(batch.rows[3].position, 5);
}

TEST(BatchBuilderTest, MasksBelongToTheirRows) {
  const auto constraint = ByteRegex("ab");
  Sequence plain = MakeSequence({10, 11}, 1, {7}, {});
  Sequence masked({.prompt = {20, 21}, .constraint = constraint}, nullptr, absl::UnixEpoch());
  Sequence both(
      {.prompt = {5}, .rules = {.bias = {{.token = 3, .bias = 2}}}, .constraint = constraint},
      nullptr, absl::UnixEpoch());
  for (Sequence* sequence : {&masked, &both}) sequence->pages = {1, 2};
  BatchBuilder builder(kLimits);
  StepPlan plan;
  for (Sequence* sequence : {&plain, &masked, &both}) {
    plan.chunks.push_back(
        {.sequence = sequence, .num_tokens = sequence->num_uncached_tokens(), .samples = true});
  }
  EXPECT_EQ(builder.Build(plan).num_edited_rows, 2);
  const RowEdits& edits = builder.BuildEdits(plan);
  EXPECT_EQ(edits.rows, (Ids{1, 2}));
  EXPECT_EQ(edits.edit_end, (Ids{0, 1}));
  EXPECT_EQ(edits.mask_of, (Ids{0, 1}));
  EXPECT_EQ(edits.masks, (std::vector<TokenMask*>{masked.constrained_output.get(),
                                                  both.constrained_output.get()}));
  plan.chunks[1].samples = plan.chunks[2].samples = false;
  EXPECT_EQ(builder.Build(plan).num_edited_rows, 0);
}

TEST(BatchBuilderTest, EditsBelongToTheirRows) {
  Sequence plain = MakeSequence({10, 11}, 1, {7}, {});
  Sequence biased({.prompt = {20, 21}, .rules = {.bias = {{.token = 3, .bias = 2}}}}, nullptr,
                  absl::UnixEpoch());
  Sequence repeating({.prompt = {5, 6, 5}, .rules = {.repetition_penalty = 2}}, nullptr,
                     absl::UnixEpoch());
  Sequence held({.prompt = {9}, .rules = {.min_tokens = 1}}, nullptr,
                absl::UnixEpoch());  // no stops
  for (Sequence* sequence : {&biased, &repeating, &held}) sequence->pages = {1, 2};
  BatchBuilder builder(kLimits);
  StepPlan plan;
  for (Sequence* sequence : {&plain, &biased, &repeating, &held}) {
    plan.chunks.push_back(
        {.sequence = sequence, .num_tokens = sequence->num_uncached_tokens(), .samples = true});
  }
  const Batch& batch = builder.Build(plan);
  const RowEdits& edits = builder.BuildEdits(plan);
  EXPECT_EQ(batch.num_edited_rows, 2);
  EXPECT_EQ(edits.rows, (Ids{1, 2}));
  EXPECT_EQ(edits.edit_end, (Ids{1, 3}));
  EXPECT_EQ(edits.mask_of, (Ids{-1, -1}));
  EXPECT_EQ(batch.rows[0].edited_row, -1);
  EXPECT_EQ(batch.rows[1].edited_row, 0);
  EXPECT_EQ(batch.rows[2].edited_row, 1);
  EXPECT_EQ(batch.rows[3].edited_row, -1);  // nothing to edit
  ASSERT_EQ(edits.edits.size(), 3U);
  EXPECT_EQ(edits.edits[0].token, 3);
  EXPECT_EQ(edits.edits[0].shift, 2);
  EXPECT_EQ(edits.edits[1].token + edits.edits[2].token, 11);
  EXPECT_EQ(edits.edits[2].factor, 2);
}

// The batch says which rows are edited, what is known later says how.
TEST(BatchBuilderTest, EditsAreThoseOfTheTokensKnownByThen) {
  const LogitRules rules{.frequency_penalty = 1, .min_tokens = 2};
  const auto sequence_of = [&](int32_t stop) {
    Sequence sequence({.prompt = {9}, .stop_token_ids = {stop}, .rules = rules}, nullptr,
                      absl::UnixEpoch());
    sequence.pages = {1, 2};
    sequence.num_pending_tokens = 1;
    sequence.pending_row = 0;
    return sequence;
  };
  Sequence goes_on = sequence_of(4), ends = sequence_of(5),
           scored({.prompt = {1, 2, 3}}, nullptr, absl::UnixEpoch());
  scored.pages = {3, 4};
  StepPlan plan{.chunks = {{.sequence = &ends, .num_tokens = 1, .samples = true},
                           {.sequence = &scored,
                            .num_tokens = 3,
                            .samples = true,
                            .first_scored = 1,
                            .num_scored = 2},
                           {.sequence = &goes_on, .num_tokens = 1, .samples = true}}};
  BatchBuilder builder(kLimits);
  EXPECT_EQ(builder.Build(plan).num_edited_rows, 2);
  goes_on.Append(7);
  plan.chunks[0].sequence = nullptr;
  const RowEdits& edits = builder.BuildEdits(plan);
  EXPECT_EQ(edits.rows, (Ids{0, 4}));
  EXPECT_EQ(edits.edit_end, (Ids{0, 2}));
  EXPECT_EQ(edits.mask_of, (Ids{-1, -1}));
  ASSERT_EQ(edits.edits.size(), 2U);
  EXPECT_EQ(edits.edits[0].token + edits.edits[1].token, 7 + 4);
}

TEST(BatchBuilderTest, TracedRowsAreTheSampledOnes) {
  Sequence scored = MakeSequence({1, 2, 3}, 0, {0}, {});
  Sequence plain = MakeSequence({4, 5}, 0, {1}, {});
  Sequence unfinished = MakeSequence({6, 7, 8}, 0, {2}, {});
  scored.request.traces_blocks = unfinished.request.traces_blocks = true;
  BatchBuilder builder(kLimits);
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &plain, .num_tokens = 2, .samples = true},
                                {.sequence = &unfinished, .num_tokens = 2, .samples = false},
                                {.sequence = &scored,
                                 .num_tokens = 3,
                                 .samples = true,
                                 .first_scored = 1,
                                 .num_scored = 2}}});
  EXPECT_EQ(batch.num_rows(), 4);
  EXPECT_EQ(batch.traced_rows, (Ids{3}));
}

TEST(BatchBuilderTest, KeepsNothingOfTheBatchBefore) {
  Sequence large = MakeSequence({1, 2, 3}, 0, {0, 1, 2}, {44});
  large.request.traces_blocks = true;
  Sequence small = MakeSequence({4}, 0, {3}, {45, 46}, 2);
  BatchBuilder builder(kLimits);
  builder.Build({.chunks = {{.sequence = &large, .num_tokens = 3, .samples = true}}});
  const Batch& batch =
      builder.Build({.chunks = {{.sequence = &small, .num_tokens = 1, .samples = false}}});
  EXPECT_EQ(batch.num_seqs, 1);
  EXPECT_EQ(batch.token_ids, (Ids{4}));
  EXPECT_EQ(batch.page_table, (Ids{3}));
  EXPECT_EQ(batch.recent_table, (Ids{46, -1, 45}));
  EXPECT_EQ(batch.num_rows(), 0);
  EXPECT_TRUE(batch.rows.empty());
  EXPECT_TRUE(batch.traced_rows.empty());
  EXPECT_EQ(batch.num_decode_tokens, 1);
  EXPECT_TRUE(batch.tiles.empty());
}

}  // namespace
}  // namespace nsa
