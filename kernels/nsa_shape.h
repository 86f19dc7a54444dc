#pragma once
// The integers that define one Native Sparse Attention (docs/nsa.md, section 1) and the arithmetic
// on them.

#include <algorithm>
#include <cstdint>

namespace nsa {

struct NsaShape {
  int64_t span_tokens = 32;     // l: raw tokens summarised by one compressed row
  int64_t span_stride = 16;     // d: tokens between the starts of neighbouring spans
  int64_t block_tokens = 64;    // l': tokens of one selection block = of one page
  int64_t num_selected = 16;    // n: blocks attended by a query, forced ones included
  int64_t num_initial = 1;      // forced blocks at the start
  int64_t num_local = 2;        // forced blocks at the query's end
  int64_t window_tokens = 512;  // w: sliding window, the query's own token included

  // a = l'/d: compressed rows whose span ends in one page.
  constexpr int64_t rows_per_page() const { return block_tokens / span_stride; }
  // e - 1 with e = l/d: compressed row i is stored as paged row i + row_offset().
  constexpr int64_t row_offset() const { return span_tokens / span_stride - 1; }
  // C(s): complete compressed rows of a sequence of s tokens.
  constexpr int64_t NumRows(int64_t num_tokens) const {
    return num_tokens < span_tokens ? 0 : (num_tokens - span_tokens) / span_stride + 1;
  }
  // True if token t is the last of a span; that span's row is then NumRows(t + 1) - 1.
  constexpr bool CompletesSpan(int64_t position) const {
    return position + 1 >= span_tokens && (position + 1 - span_tokens) % span_stride == 0;
  }
  // W_k: how many of block j's stride-sized pieces row a*j - (e-1) + k overlaps, k in [0, a+e-2].
  constexpr int64_t RowWeight(int64_t k) const {
    const int64_t a = rows_per_page();
    const int64_t e = row_offset() + 1;
    return std::min(std::min(k + 1, a + e - 1 - k), std::min(a, e));
  }
  // Forced: j < num_initial, or among the last num_local blocks up to the query's own block.
  constexpr bool IsForced(int64_t block, int64_t own_block) const {
    return block < num_initial || block > own_block - num_local;
  }
};

}  // namespace nsa
