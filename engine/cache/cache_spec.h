#pragma once
// What an attention variant keeps per page and per sequence slot, declared as named tensors. The
// page pool counts pages and the scheduler moves ids; only the attention variant knows what the
// bytes mean.

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace nsa {

// K and V rows of one stream of one layer, per page or per slot.
struct KvSegment {
  std::string name;      // "sel", "rows", "cmp", "win"
  int64_t num_rows = 0;  // rows per page (or per slot: the ring's length)
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
  std::vector<KvSegment> slot_segments;

  int64_t BytesPerPage() const { return Total(page_segments); }
  int64_t BytesPerSlot() const { return Total(slot_segments); }

 private:
  int64_t Total(const std::vector<KvSegment>& segments) const {
    int64_t bytes = 0;
    for (const KvSegment& segment : segments) bytes += segment.Bytes(dtype);
    return bytes * num_layers;
  }
};

}  // namespace nsa
