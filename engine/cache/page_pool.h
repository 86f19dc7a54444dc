#pragma once
// PagePool: which pages are free, how many sequences hold each of the others, and which nobody
// holds but whose contents are kept while there is room. Ids only, no memory. Not thread-safe: the
// engine thread owns it.

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

namespace nsa {

using PageId = int32_t;

class PagePool {
 public:
  explicit PagePool(int64_t num_pages);

  // A page with reference count 1: a free one, else the kept one that was released first, whose
  // contents are lost. Nothing when all are held.
  std::optional<PageId> Acquire();
  // Adds one reference to a held or kept page.
  void Share(PageId page);
  // Drops one reference. When none is left the page is free, or kept if Keep was called. A page
  // that nobody holds is a programmer error.
  void Release(PageId page);

  // The contents of a held page are worth keeping when nobody holds it any more.
  void Keep(PageId page);
  // They no longer are.
  void Discard(PageId page);
  // Is told of every page that Acquire takes from the kept ones.
  void OnEviction(std::function<void(PageId)> listener) { on_eviction_ = std::move(listener); }

  int64_t num_pages() const { return static_cast<int64_t>(pages_.size()); }
  // Pages that Acquire can give, the kept ones included.
  int64_t num_free() const { return static_cast<int64_t>(free_.size()) + num_kept_; }
  // Pages that nobody holds and whose contents are kept.
  int64_t num_kept() const { return num_kept_; }
  // 0 for a free or kept page. An id outside the pool is a programmer error, here and above.
  int64_t num_references(PageId page) const;

 private:
  static constexpr PageId kNone = -1;
  struct Page {
    int32_t num_references = 0;
    bool is_worth_keeping = false;
    PageId earlier = kNone, later = kNone;  // neighbours among the kept pages, by release
  };
  void CheckId(PageId page) const;
  Page& At(PageId page) {
    CheckId(page);
    return pages_[page];
  }
  void AppendKept(PageId page);
  void UnlinkKept(PageId page);

  std::vector<Page> pages_;
  std::vector<PageId> free_;  // used as a stack: the page freed last is still warm
  PageId first_kept_ = kNone, last_kept_ = kNone;
  int64_t num_kept_ = 0;
  std::function<void(PageId)> on_eviction_;
};

}  // namespace nsa
