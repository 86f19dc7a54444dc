#include "engine/step_memory.h"

#include <algorithm>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> Values(const TensorView& view) {
  return {view.data<int32_t>(), view.data<int32_t>() + view.num_elements()};
}

// Host memory for a block, all ones before it is filled.
struct HostBlock {
  explicit HostBlock(int64_t num_bytes) : words(num_bytes / sizeof(uint64_t), ~uint64_t{0}) {}
  void* data() { return words.data(); }
  std::vector<uint64_t> words;
};

Batch DecodeBatch() {
  return {.num_seqs = 2,
          .max_pages = 2,
          .token_ids = {7, Batch::TokenOfRow(3)},
          .token_sequence = {0, 1},
          .token_position = {40, 99},
          .page_table = {5, -1, 6, 4},
          .recent_columns = 2,
          .recent_table = {3, -1, 2, 1},
          .num_decode_tokens = 2,
          .tiles = {},
          .logit_tokens = {0, 1},
          .rows = {{.position = 41}, {.position = 100, .num_top_logprobs = 2}}};
}

class FixedMask : public TokenMask {
 public:
  explicit FixedMask(int32_t word) : word_(word) {}
  void CopyTo(std::span<int32_t> words) override { std::fill(words.begin(), words.end(), word_); }

 private:
  const int32_t word_;
};

TEST(StepEditsTest, HoldsEditsAndMasksAsTheyAre) {
  FixedMask first(5), second(-2);
  const RowEdits row_edits{.rows = {0, 4, 5},
                           .edit_end = {1, 1, 2},
                           .mask_of = {0, -1, 1},
                           .edits = {{.token = 3, .factor = 2, .shift = 1}, {.token = 8}},
                           .masks = {&first, &second}};
  const EditShape shape{.num_rows = 3, .num_edits = 2, .has_masks = true, .vocab_size = 65};
  HostBlock block(StepEdits::BytesOf(shape));
  const StepEdits edits(block.data(), shape);
  edits.Fill(row_edits);
  EXPECT_THAT(Values(edits.views.edit_end), ElementsAre(1, 1, 2));
  const auto* const list = static_cast<const LogitEdit*>(edits.views.edits.raw());
  EXPECT_EQ(list[0].token, 3);
  EXPECT_EQ(list[0].factor, 2);
  EXPECT_EQ(list[0].shift, 1);
  EXPECT_EQ(list[1].token, 8);
  EXPECT_THAT(Values(edits.views.masks), ElementsAre(5, 5, 5, -1, -1, -1, -2, -2, -2));
}

TEST(StepEditsTest, WithoutMasksThereIsNoRoomForAny) {
  const RowEdits row_edits{
      .rows = {0, 1}, .edit_end = {1, 1}, .mask_of = {-1, -1}, .edits = {{.token = 3}}};
  EditShape shape{.num_rows = 2, .num_edits = 1, .vocab_size = 65};
  HostBlock block(StepEdits::BytesOf(shape));
  const StepEdits edits(block.data(), shape);
  edits.Fill(row_edits);
  EXPECT_THAT(Values(edits.views.edit_end), ElementsAre(1, 1));
  EXPECT_TRUE(edits.views.masks.HasShape({0, 3}));
  shape.has_masks = true;
  EXPECT_LT(edits.num_bytes, StepEdits::BytesOf(shape));
}

TEST(StepInputsTest, HoldsABatchAsItIs) {
  Batch batch = DecodeBatch();
  batch.tiles = {1, 2, 3, 4};
  const StepShape shape = ShapeOf(batch);
  HostBlock block(StepInputs::BytesOf(shape));
  const StepInputs inputs(block.data(), shape);
  inputs.Fill(batch);
  EXPECT_THAT(Values(inputs.token_ids), ElementsAre(7, -4));
  EXPECT_THAT(Values(inputs.token_sequence), ElementsAre(0, 1));
  EXPECT_THAT(Values(inputs.token_position), ElementsAre(40, 99));
  EXPECT_THAT(Values(inputs.tiles), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Values(inputs.recent_table), ElementsAre(3, -1, 2, 1));
  EXPECT_THAT(Values(inputs.logit_tokens), ElementsAre(0, 1));
  EXPECT_THAT(Values(inputs.page_table), ElementsAre(5, -1, 6, 4));
  EXPECT_EQ(inputs.shape.num_decode_tokens, 2);
  ASSERT_EQ(inputs.rows.size(), 2U);
  EXPECT_EQ(inputs.rows[1].position, 100);
  EXPECT_EQ(inputs.rows[1].num_top_logprobs, 2);
  for (const TensorView& view : {inputs.token_ids, inputs.tiles, inputs.page_table}) {
    EXPECT_EQ((static_cast<uint8_t*>(view.raw()) - static_cast<uint8_t*>(block.data())) % 64, 0);
  }
}

TEST(StepInputsTest, PadsToAShape) {
  const StepShape shape{.num_tokens = 4,
                        .num_decode_tokens = 4,
                        .num_seqs = 4,
                        .num_rows = 4,
                        .max_pages = 3,
                        .recent_columns = 2};
  HostBlock block(StepInputs::BytesOf(shape));
  const StepInputs inputs(block.data(), shape);
  inputs.Fill(DecodeBatch());
  EXPECT_THAT(Values(inputs.token_ids), ElementsAre(7, -4, 0, 0));
  EXPECT_THAT(Values(inputs.token_sequence), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Values(inputs.token_position), ElementsAre(40, 99, -1, -1));
  EXPECT_THAT(Values(inputs.recent_table), ElementsAre(3, -1, 2, 1, -1, -1, -1, -1));
  EXPECT_THAT(Values(inputs.logit_tokens), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Values(inputs.page_table), ElementsAre(5, -1, -1, 6, 4, -1, -1, -1, -1, -1, -1, -1));
  EXPECT_EQ(inputs.rows[3].params.temperature, 0);
  EXPECT_EQ(inputs.rows[3].num_top_logprobs, -1);
  EXPECT_EQ(inputs.tiles.dim(0), 0);
}

TEST(StepOutputsTest, ReadsARow) {
  HostBlock block(StepOutputs::BytesOf({.max_rows = 2}));
  const StepOutputs outputs(block.data(), {.max_rows = 2});
  outputs.tokens.data<int32_t>()[1] = 9;
  outputs.logprobs.data<float>()[1] = -0.5F;
  outputs.finite.data<uint8_t>()[0] = 0;
  outputs.finite.data<uint8_t>()[1] = 1;
  for (int32_t i = 0; i < 3; ++i) {
    outputs.top_tokens.data<int32_t>()[kMaxTopLogprobs + i] = 9 + i;
    outputs.top_logprobs.data<float>()[kMaxTopLogprobs + i] = -0.5F - static_cast<float>(i);
  }
  EXPECT_FALSE(outputs.Read(0, -1, 100).finite);
  EXPECT_EQ(outputs.Read(1, -1, 100).token, 9);
  EXPECT_EQ(outputs.Read(1, -1, 100).logprob, 0);
  EXPECT_EQ(outputs.Read(1, 0, 100).logprob, -0.5F);
  EXPECT_TRUE(outputs.Read(1, 0, 100).top_logprobs.empty());
  const SampledToken full = outputs.Read(1, 3, 100);
  ASSERT_EQ(full.top_logprobs.size(), 3U);
  EXPECT_EQ(full.top_logprobs[2].token, 11);
  EXPECT_EQ(full.top_logprobs[2].logprob, -2.5F);
  EXPECT_EQ(outputs.Read(1, 3, 2).top_logprobs.size(), 2U);  // no more than there are tokens
}

TEST(StepInputsTest, TracedTokensAreThoseOfTheTracedRows) {
  Batch batch = DecodeBatch();
  batch.logit_tokens = {1, 0};
  batch.traced_rows = {0};
  const StepShape shape = ShapeOf(batch);
  HostBlock block(StepInputs::BytesOf(shape));
  const StepInputs inputs(block.data(), shape);
  inputs.Fill(batch);
  EXPECT_THAT(Values(inputs.traced_tokens), ElementsAre(1));
}

TEST(StepOutputsTest, BlocksOfATracedRowComeLayerByLayer) {
  const OutputExtent extent{
      .max_rows = 2, .max_traced = 3, .num_layers = 2, .num_traced_blocks = 2};
  HostBlock block(StepOutputs::BytesOf(extent));
  const StepOutputs outputs(block.data(), extent);
  std::iota(outputs.traced_blocks.data<int32_t>(), outputs.traced_blocks.data<int32_t>() + 12, 0);
  EXPECT_THAT(outputs.ReadBlocks(0), ElementsAre(0, 1, 6, 7));
  EXPECT_THAT(outputs.ReadBlocks(2), ElementsAre(4, 5, 10, 11));
  EXPECT_EQ(outputs.num_bytes_before_blocks, StepOutputs::BytesOf({.max_rows = 2}));
}

}  // namespace
}  // namespace nsa
