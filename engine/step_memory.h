#pragma once
// How a step's inputs and outputs lie in one block of memory each, so that a step needs one copy to
// the device and one back. The same layout holds on the host and on the device. Edits have a block
// on the host alone, from which the device reads them.

#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor_view.h"
#include "engine/batch.h"
#include "engine/executor.h"

namespace nsa {

// The extents of a step's inputs, padding included.
struct StepShape {
  int64_t num_tokens = 0;
  int64_t num_decode_tokens = 0;
  int64_t num_tiles = 0;
  int64_t num_seqs = 0;
  int64_t num_rows = 0;
  int64_t max_pages = 0;       // columns of the page table
  int64_t recent_columns = 0;  // of the table of recent pages
  int64_t num_traced = 0;      // rows
  int64_t num_edited_rows = 0;
};

// The shape of a batch as it is.
StepShape ShapeOf(const Batch& batch);

// A step's inputs in a block.
struct StepInputs {
  // The views of a step of this shape in `block`, which has BytesOf(shape) bytes, 64-byte-aligned.
  StepInputs(void* block, const StepShape& shape);
  static int64_t BytesOf(const StepShape& shape);
  // Fills a host block. What the shape has beyond the batch is padding: tokens at position -1 of
  // sequences without pages, whose logits are sampled greedily.
  void Fill(const Batch& batch) const;

  StepShape shape;
  std::span<SampleRow> rows;                             // [num_rows]
  TensorView token_ids, token_sequence, token_position;  // [num_tokens] i32
  TensorView tiles;                                      // [num_tiles, 4] i32
  TensorView logit_tokens;                               // [num_rows] i32
  TensorView traced_tokens;                              // [num_traced] i32, packed indices
  TensorView page_table;                                 // [num_seqs, max_pages] i32
  TensorView recent_table;                               // [num_seqs, recent_columns] i32
  int64_t num_bytes = 0;
};

// The extents of a step's edits.
struct EditShape {
  int64_t num_rows = 0, num_edits = 0;
  bool has_masks = false;  // any; then every row has room for one
  int64_t vocab_size = 0;
};

// A step's edits in a block.
struct StepEdits {
  // As StepInputs.
  StepEdits(void* block, const EditShape& shape);
  static int64_t BytesOf(const EditShape& shape);
  // Fills a host block; waits for masks or computes them. A row without one allows everything.
  void Fill(const RowEdits& row_edits) const;

  LogitEdits views;
  int64_t num_bytes = 0;
};

// The most that steps put out.
struct OutputExtent {
  int64_t max_rows = 0;
  int64_t max_traced = 0;         // rows
  int64_t num_layers = 0;         // of the model
  int64_t num_traced_blocks = 0;  // as Attention::num_traced_blocks
};

// A step's outputs in a block. What few steps want comes last.
struct StepOutputs {
  StepOutputs(void* block, const OutputExtent& extent);
  static int64_t BytesOf(const OutputExtent& extent);
  // Row `row` as the engine sees it, from a host block.
  SampledToken Read(int64_t row, int32_t num_top_logprobs, int64_t vocab_size) const;
  // SampledToken::blocks of the traced_idx-th traced row.
  std::vector<int32_t> ReadBlocks(int64_t traced_idx) const;

  TensorView tokens;        // [max_rows] i32
  TensorView logprobs;      // [max_rows] f32
  TensorView finite;        // [max_rows] u8
  int64_t num_short_bytes;  // of the three above, which come first
  TensorView top_tokens;    // [max_rows, kMaxTopLogprobs] i32
  TensorView top_logprobs;  // [max_rows, kMaxTopLogprobs] f32
  int64_t num_bytes_before_blocks;
  TensorView traced_blocks;  // [num_layers, max_traced, num_traced_blocks] i32
  int64_t num_bytes;
};

}  // namespace nsa
