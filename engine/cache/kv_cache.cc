#include "engine/cache/kv_cache.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace nsa {
namespace {

// Every (layer, segment) starts on a boundary of its own.
constexpr int64_t kAlignment = 64;

int64_t Aligned(int64_t num_bytes) {
  return (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Appends the offsets of `count` units of each segment in each layer; returns the end.
int64_t LayOut(const CacheSpec& spec, const std::vector<KvSegment>& segments, int64_t count,
               int64_t offset, std::vector<int64_t>& offsets) {
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (const KvSegment& segment : segments) {
      offsets.push_back(offset);
      offset += Aligned(segment.Bytes(spec.dtype) * count);
    }
  }
  return offset;
}

}  // namespace

KvCache::KvCache(CacheSpec spec, int64_t num_pages, int64_t num_recent_pages, Device* device)
    : spec_(std::move(spec)),
      device_(device),
      num_pages_(num_pages),
      num_recent_pages_(num_recent_pages) {
  int64_t num_bytes = LayOut(spec_, spec_.page_segments, num_pages, 0, page_offsets_);
  num_bytes = LayOut(spec_, spec_.recent_segments, num_recent_pages, num_bytes, recent_offsets_);
  memory_ = DeviceBuffer(num_bytes, device);
}

KvCache::KvTensors KvCache::PageTensors(int64_t layer, int64_t segment) const {
  const int64_t num_segments = static_cast<int64_t>(spec_.page_segments.size());
  NSA_CHECK(layer >= 0 && layer < spec_.num_layers && segment >= 0 && segment < num_segments);
  return Tensors(spec_.page_segments[segment], num_pages_,
                 page_offsets_[layer * num_segments + segment]);
}

KvCache::KvTensors KvCache::RecentTensors(int64_t layer, int64_t segment) const {
  const int64_t num_segments = static_cast<int64_t>(spec_.recent_segments.size());
  NSA_CHECK(layer >= 0 && layer < spec_.num_layers && segment >= 0 && segment < num_segments);
  return Tensors(spec_.recent_segments[segment], num_recent_pages_,
                 recent_offsets_[layer * num_segments + segment]);
}

void KvCache::CopyPage(int64_t from, int64_t to) {
  CopySegments(&KvCache::PageTensors, spec_.page_segments.size(), from, to);
}

void KvCache::CopyRecentPage(int64_t from, int64_t to) {
  CopySegments(&KvCache::RecentTensors, spec_.recent_segments.size(), from, to);
}

void KvCache::CopySegments(TensorsOf tensors_of, size_t num_segments, int64_t from, int64_t to) {
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    for (size_t segment = 0; segment < num_segments; ++segment) {
      const KvTensors tensors = (this->*tensors_of)(layer, static_cast<int64_t>(segment));
      Copy(tensors.k, from, to);
      Copy(tensors.v, from, to);
    }
  }
}

void KvCache::Copy(const TensorView& pages, int64_t from, int64_t to) {
  const int64_t num_pages = pages.dim(0);
  NSA_CHECK(from >= 0 && from < num_pages && to >= 0 && to < num_pages && from != to);
  const int64_t page_bytes = pages.num_bytes() / num_pages;
  char* const base = static_cast<char*>(pages.raw());
  if (device_ != nullptr) {
    device_->Copy(base + from * page_bytes, base + to * page_bytes, page_bytes);
  } else {
    std::memcpy(base + to * page_bytes, base + from * page_bytes, page_bytes);
  }
}

KvCache::KvTensors KvCache::Tensors(const KvSegment& segment, int64_t count, int64_t offset) const {
  char* k = static_cast<char*>(memory_.data()) + offset;
  const int64_t k_bytes =
      count * segment.num_kv_heads * segment.num_rows * segment.d_k * DTypeBytes(spec_.dtype);
  return {
      .k = {k, spec_.dtype, {count, segment.num_kv_heads, segment.num_rows, segment.d_k}},
      .v = {
          k + k_bytes, spec_.dtype, {count, segment.num_kv_heads, segment.num_rows, segment.d_v}}};
}

}  // namespace nsa
