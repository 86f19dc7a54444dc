#pragma once
// PagePool: which pages are free, and how many sequences hold each of the others. Ids only, no
// memory. Not thread-safe: the engine thread owns it.

#include <cstdint>
#include <optional>
#include <vector>

namespace nsa {

using PageId = int32_t;

class PagePool {
 public:
  explicit PagePool(int64_t num_pages);

  // A free page with reference count 1, or nothing when none is left.
  std::optional<PageId> Acquire();
  // Adds one reference to a held page.
  void Share(PageId page);
  // Drops one reference; the page is free when none is left. A free page is a programmer error.
  void Release(PageId page);

  int64_t num_pages() const { return static_cast<int64_t>(references_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  // 0 for a free page. An id outside the pool is a programmer error, here and above.
  int64_t num_references(PageId page) const;

 private:
  std::vector<int32_t> references_;  // [num_pages]
  std::vector<PageId> free_;         // used as a stack: the page freed last is still warm
};

}  // namespace nsa
