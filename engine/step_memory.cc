#include "engine/step_memory.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "engine/runtime/workspace.h"

namespace nsa {
namespace {

// Hands out a block piece by piece; without a block it only counts.
class Block {
 public:
  explicit Block(void* memory) : memory_(static_cast<uint8_t*>(memory)) {}

  void* Take(int64_t num_bytes) {
    void* piece = memory_ == nullptr ? nullptr : memory_ + num_bytes_;
    num_bytes_ += Workspace::Rounded(num_bytes);
    return piece;
  }
  TensorView Take(DType dtype, std::initializer_list<int64_t> shape) {
    const TensorView extent(nullptr, dtype, shape);
    return {Take(extent.num_bytes()), dtype, shape};
  }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  uint8_t* memory_;
  int64_t num_bytes_ = 0;
};

// Copies `values` to the front of `to` and fills the rest.
void FillFront(const std::vector<int32_t>& values, int32_t rest, const TensorView& to) {
  auto* out = to.data<int32_t>();
  out = std::copy(values.begin(), values.end(), out);
  std::fill(out, to.data<int32_t>() + to.num_elements(), rest);
}

// Copies rows of num_columns page ids to the front of the table's rows and fills the rest with -1.
void FillTable(const std::vector<int32_t>& rows, int64_t num_columns, const TensorView& table) {
  auto* to = table.data<int32_t>();
  for (auto from = rows.begin(); from != rows.end(); from += num_columns) {
    int32_t* const end = std::copy(from, from + num_columns, to);
    to += table.dim(1);
    std::fill(end, to, -1);
  }
  std::fill(to, table.data<int32_t>() + table.num_elements(), -1);
}

}  // namespace

StepShape ShapeOf(const Batch& batch) {
  return {.num_tokens = batch.num_tokens(),
          .num_decode_tokens = batch.num_decode_tokens,
          .num_tiles = static_cast<int64_t>(batch.tiles.size()) / 4,
          .num_seqs = batch.num_seqs,
          .num_rows = batch.num_rows(),
          .max_pages = batch.max_pages,
          .recent_columns = batch.recent_columns,
          .num_traced = batch.num_traced(),
          .num_edited_rows = batch.num_edited_rows};
}

StepInputs::StepInputs(void* block_memory, const StepShape& step_shape) : shape(step_shape) {
  Block block(block_memory);
  void* const row_memory = block.Take(shape.num_rows * static_cast<int64_t>(sizeof(SampleRow)));
  rows = {static_cast<SampleRow*>(row_memory), static_cast<size_t>(shape.num_rows)};
  token_ids = block.Take(DType::kI32, {shape.num_tokens});
  token_sequence = block.Take(DType::kI32, {shape.num_tokens});
  token_position = block.Take(DType::kI32, {shape.num_tokens});
  tiles = block.Take(DType::kI32, {shape.num_tiles, 4});
  logit_tokens = block.Take(DType::kI32, {shape.num_rows});
  traced_tokens = block.Take(DType::kI32, {shape.num_traced});
  page_table = block.Take(DType::kI32, {shape.num_seqs, shape.max_pages});
  recent_table = block.Take(DType::kI32, {shape.num_seqs, shape.recent_columns});
  num_bytes = block.num_bytes();
}

int64_t StepInputs::BytesOf(const StepShape& shape) { return StepInputs(nullptr, shape).num_bytes; }

void StepInputs::Fill(const Batch& batch) const {
  FillFront(batch.token_ids, 0, token_ids);
  FillFront(batch.token_sequence, 0, token_sequence);
  FillFront(batch.token_position, -1, token_position);
  FillFront(batch.tiles, 0, tiles);
  FillFront(batch.logit_tokens, 0, logit_tokens);
  // Padding is one token, one row and one sequence of each place beyond the batch.
  auto* const sequence = token_sequence.data<int32_t>();
  auto* const logit_token = logit_tokens.data<int32_t>();
  std::iota(sequence + batch.num_tokens(), sequence + shape.num_tokens,
            static_cast<int32_t>(batch.num_tokens()));
  std::iota(logit_token + batch.num_rows(), logit_token + shape.num_rows,
            static_cast<int32_t>(batch.num_rows()));
  const auto rest = std::copy(batch.rows.begin(), batch.rows.end(), rows.begin());
  std::fill(rest, rows.end(), SampleRow{.params = {.temperature = 0}});
  std::transform(batch.traced_rows.begin(), batch.traced_rows.end(), traced_tokens.data<int32_t>(),
                 [&](int32_t row) { return batch.logit_tokens[row]; });
  FillTable(batch.page_table, batch.max_pages, page_table);
  FillTable(batch.recent_table, batch.recent_columns, recent_table);
}

StepEdits::StepEdits(void* block_memory, const EditShape& shape) {
  Block block(block_memory);
  views.edit_end = block.Take(DType::kI32, {shape.num_rows});
  views.edits = block.Take(DType::kU8, {shape.num_edits * static_cast<int64_t>(sizeof(LogitEdit))});
  views.masks = block.Take(DType::kI32,
                           {shape.has_masks ? shape.num_rows : 0, NumMaskWords(shape.vocab_size)});
  num_bytes = block.num_bytes();
}

int64_t StepEdits::BytesOf(const EditShape& shape) { return StepEdits(nullptr, shape).num_bytes; }

void StepEdits::Fill(const RowEdits& row_edits) const {
  const auto num_rows = static_cast<size_t>(views.edit_end.dim(0));
  NSA_CHECK(row_edits.edit_end.size() == num_rows && row_edits.mask_of.size() == num_rows);
  NSA_CHECK(row_edits.edits.empty() ||
            row_edits.edit_end.back() == static_cast<int64_t>(row_edits.edits.size()));
  FillFront(row_edits.edit_end, 0, views.edit_end);
  std::copy(row_edits.edits.begin(), row_edits.edits.end(),
            static_cast<LogitEdit*>(views.edits.raw()));
  if (row_edits.masks.empty()) return;
  std::span<int32_t> words(views.masks.data<int32_t>(), static_cast<size_t>(views.masks.dim(1)));
  for (const int32_t mask : row_edits.mask_of) {
    if (mask < 0) {
      std::fill(words.begin(), words.end(), -1);
    } else {
      row_edits.masks[mask]->CopyTo(words);
    }
    words = {words.data() + words.size(), words.size()};
  }
}

StepOutputs::StepOutputs(void* block_memory, const OutputExtent& extent) {
  Block block(block_memory);
  const int64_t max_rows = extent.max_rows;
  tokens = block.Take(DType::kI32, {max_rows});
  logprobs = block.Take(DType::kF32, {max_rows});
  finite = block.Take(DType::kU8, {max_rows});
  num_short_bytes = block.num_bytes();
  top_tokens = block.Take(DType::kI32, {max_rows, kMaxTopLogprobs});
  top_logprobs = block.Take(DType::kF32, {max_rows, kMaxTopLogprobs});
  num_bytes_before_blocks = block.num_bytes();
  traced_blocks =
      block.Take(DType::kI32, {extent.num_layers, extent.max_traced, extent.num_traced_blocks});
  num_bytes = block.num_bytes();
}

int64_t StepOutputs::BytesOf(const OutputExtent& extent) {
  return StepOutputs(nullptr, extent).num_bytes;
}

std::vector<int32_t> StepOutputs::ReadBlocks(int64_t traced_idx) const {
  std::vector<int32_t> blocks;
  const int64_t num_blocks = traced_blocks.dim(2);
  for (int64_t layer = 0; layer < traced_blocks.dim(0); ++layer) {
    const int32_t* const from = traced_blocks.data<int32_t>() + layer * traced_blocks.stride(0) +
                                traced_idx * traced_blocks.stride(1);
    blocks.insert(blocks.end(), from, from + num_blocks);
  }
  return blocks;
}

SampledToken StepOutputs::Read(int64_t row, int32_t num_top_logprobs, int64_t vocab_size) const {
  SampledToken sampled{.token = tokens.data<int32_t>()[row],
                       .finite = finite.data<uint8_t>()[row] != 0};
  if (num_top_logprobs < 0) return sampled;
  sampled.logprob = logprobs.data<float>()[row];
  const int64_t num_top = std::min<int64_t>(num_top_logprobs, vocab_size);
  for (int64_t i = 0; i < num_top; ++i) {
    const int64_t place = row * kMaxTopLogprobs + i;
    sampled.top_logprobs.push_back(
        {.token = top_tokens.data<int32_t>()[place], .logprob = top_logprobs.data<float>()[place]});
  }
  return sampled;
}

}  // namespace nsa
