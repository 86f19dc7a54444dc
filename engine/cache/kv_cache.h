#pragma once
// KvCache: the memory of both kinds of pages, allocated once, and its tensors by layer and segment.

#include <cstdint>
#include <vector>

#include "base/tensor_view.h"
#include "engine/cache/cache_spec.h"
#include "engine/runtime/memory.h"

namespace nsa {

class KvCache {
 public:
  // Allocates on the device, which must outlive the cache (null: the host). Contents are undefined.
  KvCache(CacheSpec spec, int64_t num_pages, int64_t num_recent_pages, Device* device = nullptr);

  const CacheSpec& spec() const { return spec_; }
  int64_t num_pages() const { return num_pages_; }
  int64_t num_recent_pages() const { return num_recent_pages_; }

  struct KvTensors {
    TensorView k;  // [num_pages or num_recent_pages, num_kv_heads, num_rows, d_k] of spec().dtype
    TensorView v;  // [.., d_v]
  };
  // The tensors of spec().page_segments[segment] (or recent_segments) in a layer.
  KvTensors PageTensors(int64_t layer, int64_t segment) const;
  KvTensors RecentTensors(int64_t layer, int64_t segment) const;

  // Enqueue a copy of everything in a page, or in a recent page, into another one.
  void CopyPage(int64_t from, int64_t to);
  void CopyRecentPage(int64_t from, int64_t to);

 private:
  KvTensors Tensors(const KvSegment& segment, int64_t count, int64_t offset) const;

  using TensorsOf = KvTensors (KvCache::*)(int64_t layer, int64_t segment) const;
  void CopySegments(TensorsOf tensors_of, size_t num_segments, int64_t from, int64_t to);
  void Copy(const TensorView& pages, int64_t from, int64_t to);

  CacheSpec spec_;
  Device* device_;  // null: the host
  int64_t num_pages_, num_recent_pages_;
  // Byte offset of each (layer, segment) in memory_.
  std::vector<int64_t> page_offsets_, recent_offsets_;
  DeviceBuffer memory_;
};

}  // namespace nsa
