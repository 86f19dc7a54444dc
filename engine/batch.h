#pragma once
// One engine step's work, as plain data: what the batch builder fills and the executor reads.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/logit_edits.h"
#include "kernels/paged_kv.h"
#include "kernels/sampling.h"

namespace nsa {

// Which tokens one row may sample; perhaps still to be computed.
class TokenMask {
 public:
  virtual ~TokenMask() = default;
  // Waits for the mask, or computes it, and writes it as LogitEdits::masks has it, the rest of
  // `words` as 0.
  virtual void CopyTo(std::span<int32_t> words) = 0;
};

// All that a page holds, from one page to another.
struct PageCopy {
  int32_t from = 0, to = 0;
  bool operator==(const PageCopy&) const = default;
};

// A packed batch: the sequences' new tokens one after another. A sequence has 1 token in decode,
// more in prefill.
struct Batch {
  // In token_ids: the token that row `row` of the step launched before this one samples, which the
  // host does not know yet.
  static constexpr int32_t TokenOfRow(int32_t row) { return -1 - row; }

  int64_t num_seqs = 0;
  int64_t max_pages = 0;  // columns of page_table
  // Done one after another, before anything of the step is stored. Of pages, and of recent pages.
  std::vector<PageCopy> page_copies, recent_copies;
  std::vector<int32_t> token_ids;       // [num_tokens] ids, or TokenOfRow
  std::vector<int32_t> token_sequence;  // [num_tokens] in [0, num_seqs)
  std::vector<int32_t> token_position;  // [num_tokens] position in its sequence
  std::vector<int32_t> page_table;    // [num_seqs, max_pages] page ids, -1 past the sequence's end
  int64_t recent_columns = 0;         // of recent_table; the same in every batch
  std::vector<int32_t> recent_table;  // [num_seqs, recent_columns]: recent page p of a sequence in
                                      // column p % recent_columns, -1 elsewhere
  int64_t num_decode_tokens = 0;      // the first tokens, as TokenMap
  std::vector<int32_t> tiles;         // [num_tiles, 4] of the other tokens, as TokenMap
  std::vector<int32_t>
      logit_tokens;             // [num_rows] packed indices of the tokens whose logits are sampled
  std::vector<SampleRow> rows;  // [num_rows]
  std::vector<int32_t> traced_rows;  // rows whose tokens' choice of blocks is wanted, ascending
  int64_t num_edited_rows = 0;       // rows with an edited_row; if there are any, RowEdits follow

  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
  int64_t num_rows() const { return static_cast<int64_t>(logit_tokens.size()); }
  int64_t num_traced() const { return static_cast<int64_t>(traced_rows.size()); }
};

// What becomes of the logits of a batch's edited rows before they are sampled. It depends on the
// tokens before those rows, which the step before may still be sampling when the batch is launched.
struct RowEdits {
  std::vector<int32_t> rows;      // [num_edited_rows] of the batch
  std::vector<int32_t> edit_end;  // [num_edited_rows], as LogitEdits
  std::vector<int32_t> mask_of;   // [num_edited_rows] of `masks`, or -1
  std::vector<LogitEdit> edits;
  std::vector<TokenMask*> masks;

  int64_t num_rows() const { return static_cast<int64_t>(rows.size()); }
};

}  // namespace nsa
