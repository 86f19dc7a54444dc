#pragma once
// Caches with known contents, scattered over pages or rings, for tests of the NSA operations.

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/paged_kv.h"
#include "tests/support/tensor.h"

namespace nsa::testing {

struct CacheLayout {
  int64_t num_kv_heads = 1;
  int64_t d_k = 8;
  int64_t d_v = 8;
  int64_t page_rows = 16;
  DType dtype = DType::kF32;
  // > 0: only the last so many rows, in pages that are used in turn, or in one page where this is
  // no multiple of page_rows.
  int64_t ring_rows = 0;
};

// K of every `every`-th row becomes K * factor + offset.
struct KeyChange {
  double factor, offset;
  int64_t every;
};

// K and V rows of several sequences. Pages are handed out in random order with holes between them;
// everything that holds no row is NaN, so that a kernel that reads it shows.
class TestCache {
 public:
  // rows_of[s] rows for sequence s, of which a ring keeps the last.
  TestCache(const CacheLayout& layout, const std::vector<int64_t>& rows_of, std::mt19937& random);
  // In the pages of `other`, which must cover them.
  TestCache(const CacheLayout& layout, const std::vector<int64_t>& rows_of, std::mt19937& random,
            const TestCache& other);

  PagedKv kv() const { return {k_.view(), v_.view(), table_->view()}; }
  const CacheLayout& layout() const { return layout_; }
  const Tensor& k() const { return k_; }
  const Tensor& v() const { return v_; }
  const Tensor& table() const { return *table_; }

  double K(int64_t sequence, int64_t row, int64_t head, int64_t c) const;
  double V(int64_t sequence, int64_t row, int64_t head, int64_t c) const;
  void SetK(int64_t sequence, int64_t row, int64_t head, int64_t c, double value);
  void SetV(int64_t sequence, int64_t row, int64_t head, int64_t c, double value);
  // Of the rows of sequence 0 below `end`, as far as the cache still has them.
  void ChangeKeys(int64_t end, const KeyChange& change);
  // Makes all rows NaN again.
  void Clear();

 private:
  // Index of the row among the cache's [pages, heads, page_rows] rows.
  int64_t RowIndex(int64_t sequence, int64_t row, int64_t head) const;

  void Fill(const std::vector<int64_t>& rows_of, int64_t num_pages, std::mt19937& random);

  CacheLayout layout_;
  Tensor k_, v_;
  std::shared_ptr<Tensor> table_;  // of several caches, as in a model
};

// The query tokens of a batch. Position -1 is padding.
struct TestToken {
  int32_t sequence = 0;
  int32_t position = 0;
};

class TestTokens {
 public:
  explicit TestTokens(const std::vector<TestToken>& tokens);
  TokenMap map() const { return {sequence_.view(), position_.view()}; }

 private:
  Tensor sequence_, position_;
};

// Positions [begin, end) of a sequence.
std::vector<TestToken> Chunk(int32_t sequence, int64_t begin, int64_t end);

}  // namespace nsa::testing
