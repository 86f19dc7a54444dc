#pragma once
// What an attention variant keeps per page, declared as named tensors. The page pools count pages
// and the scheduler moves ids; only the attention variant knows what the bytes mean.
//
// There are two kinds of pages, both of page_tokens tokens. A sequence keeps its pages as long as
// it is in the cache. Its recent pages hold streams of which only the end is ever read again: one
// is given back once every token in it lies more than lookback_tokens before the next one.

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace nsa {

// K and V rows of one stream of one layer in a page.
struct KvSegment {
  std::string name;  // "sel", "rows", "cmp", "win"
  int64_t num_rows = 0;
  int64_t num_kv_heads = 0;
  int64_t d_k = 0;
  int64_t d_v = 0;
  int64_t Bytes(DType dtype) const {
    return num_rows * num_kv_heads * (d_k + d_v) * DTypeBytes(dtype);
  }
};

// The same for every layer.
struct CacheSpec {
  int64_t page_tokens = 0;
  int64_t num_layers = 0;
  DType dtype = DType::kBF16;
  std::vector<KvSegment> page_segments;
  std::vector<KvSegment> recent_segments;
  int64_t lookback_tokens = 0;  // 0 where there are no recent segments

  int64_t BytesPerPage() const { return Total(page_segments); }
  int64_t BytesPerRecentPage() const { return Total(recent_segments); }

 private:
  int64_t Total(const std::vector<KvSegment>& segments) const {
    int64_t bytes = 0;
    for (const KvSegment& segment : segments) bytes += segment.Bytes(dtype);
    return bytes * num_layers;
  }
};

// Pages that num_tokens > 0 consecutive tokens touch at most, wherever they begin.
inline int64_t MaxPagesTouched(int64_t num_tokens, int64_t page_tokens) {
  return (num_tokens + page_tokens - 2) / page_tokens + 1;
}

}  // namespace nsa
