#pragma once
// The inner core of every attention: queries that share a KV head against a run of cached rows,
// and the rows' place in memory.

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

  // Index of row r's K and V among [num_pages * num_kv_heads * page_rows] rows of the cache.
  int64_t CacheRow(int64_t r) const {
    const int64_t page_rows = kv->page_rows();
    const int64_t logical = chosen == nullptr ? r / page_rows : chosen[r / page_rows];
    const int64_t page = table[logical % kv->table.dim(1)];
    NSA_CHECK(page >= 0 && page < kv->k.dim(0))
        << "row " << r << " is in page " << page << " of " << kv->k.dim(0);
    return (page * kv->num_kv_heads() + kv_head) * page_rows + r % page_rows;
  }
};

// One query head of one token, and the rows [begin, end) that it sees.
struct Query {
  const float* q = nullptr;  // [d_k]
  float* out = nullptr;      // out: [d_v]
  float* lse = nullptr;      // out: natural log of the sum of exp(scaled scores)
  int64_t begin = 0;
  int64_t end = 0;
};

// Softmax attention of each query over its rows: fp32, online softmax over tiles in ascending
// order. No rows: output 0, lse -inf. A query's bits do not depend on the other queries.
void Attend(const KvRows& rows, std::span<const Query> queries, float softmax_scale);

}  // namespace nsa::cpu
