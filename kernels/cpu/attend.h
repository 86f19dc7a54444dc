#pragma once
// The inner core of every attention: queries that share a KV head against a run of cached rows,
// and the rows' place in memory.

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/paged_kv.h"

namespace nsa::cpu {

// Queries of one task; sizes its scratch.
inline constexpr int64_t kMaxTaskQueries = 64;
// Rows of K and V handled together. Tiles start at multiples of kTileRows, whatever the batch, so
// that a query's order of accumulation depends on its position alone.
inline constexpr int64_t kTileRows = 32;

// One KV head's rows of one sequence as a virtual sequence. Row r lies in logical page r /
// page_rows, which is entry `p % table_width` of the table with p = that page, or with p = chosen[]
// of it if only chosen pages (blocks) are visible.
struct KvRows {
  const PagedKv* kv = nullptr;
  const int32_t* table = nullptr;   // [table_width], the sequence's
  const int32_t* chosen = nullptr;  // ascending block ids, or null: every page
  int64_t kv_head = 0;

  // Index, among the [num_pages * num_kv_heads * page_rows] rows of the cache, of the first row of
  // a logical page.
  int64_t PageStart(int64_t logical) const {
    const int64_t block = chosen == nullptr ? logical : chosen[logical];
    const int64_t page = table[block % kv->table.dim(1)];
    NSA_CHECK(page >= 0 && page < kv->k.dim(0))
        << "block " << block << " is in page " << page << " of " << kv->k.dim(0);
    return (page * kv->num_kv_heads() + kv_head) * kv->page_rows();
  }
  // Likewise of row r.
  int64_t CacheRow(int64_t r) const { return PageStart(r / kv->page_rows()) + r % kv->page_rows(); }
};

// The cache rows of the tile that starts at virtual row first_row, as far as they lie in
// [begin, end), of which the tile must hold at least one.
class TileRows {
 public:
  TileRows(const KvRows& rows, int64_t first_row, int64_t begin, int64_t end) {
    const int64_t page_rows = rows.kv->page_rows();
    begin_ = std::max(begin - first_row, int64_t{0});
    end_ = std::min(end - first_row, kTileRows);
    for (int64_t lane = begin_; lane < end_;) {
      const int64_t page = (first_row + lane) / page_rows;
      const int64_t page_end = std::min(end_, (page + 1) * page_rows - first_row);
      const int64_t offset = rows.PageStart(page) - page * page_rows + first_row;
      for (; lane < page_end; ++lane) rows_[lane] = offset + lane;
    }
  }

  // The lane's row, or for a lane outside the range the first row inside it.
  int64_t RowOrFirst(int64_t lane) const {
    return rows_[lane >= begin_ && lane < end_ ? lane : begin_];
  }

 private:
  int64_t begin_, end_;
  int64_t rows_[kTileRows];
};

// One query head of one token, and the rows [begin, end) that it sees.
struct Query {
  const float* q = nullptr;  // [d_k]
  float* out = nullptr;      // out: [d_v]
  float* lse = nullptr;      // out: natural log of the sum of exp(scaled scores)
  int64_t begin = 0;
  int64_t end = 0;
};

// Rows [begin, end) that hold all rows seen by some query; empty if there are none.
struct SeenRows {
  int64_t begin = 0;
  int64_t end = 0;
};
SeenRows AllSeenRows(std::span<const Query> queries);

// Softmax attention of each query over its rows: fp32, online softmax over tiles in ascending
// order. No rows: output 0, lse -inf. A query's bits do not depend on the other queries.
void Attend(const KvRows& rows, std::span<const Query> queries, float softmax_scale);

}  // namespace nsa::cpu
