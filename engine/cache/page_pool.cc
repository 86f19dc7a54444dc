#include "engine/cache/page_pool.h"

#include "base/check.h"

namespace nsa {

PagePool::PagePool(int64_t num_pages) : pages_(num_pages) {
  free_.reserve(num_pages);
  for (int64_t page = num_pages - 1; page >= 0; --page) free_.push_back(static_cast<PageId>(page));
}

std::optional<PageId> PagePool::Acquire() {
  PageId page = first_kept_;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else if (page != kNone) {
    UnlinkKept(page);
    At(page).is_worth_keeping = false;
    if (on_eviction_) on_eviction_(page);
  } else {
    return std::nullopt;
  }
  At(page).num_references = 1;
  return page;
}

void PagePool::Share(PageId page) {
  Page& shared = At(page);
  NSA_CHECK(shared.num_references > 0 || shared.is_worth_keeping) << "page " << page << " is free";
  if (shared.num_references++ == 0) UnlinkKept(page);
}

void PagePool::Release(PageId page) {
  Page& released = At(page);
  NSA_CHECK_GT(released.num_references, 0) << "nobody holds page " << page;
  if (--released.num_references > 0) return;
  if (released.is_worth_keeping) {
    AppendKept(page);
  } else {
    free_.push_back(page);
  }
}

void PagePool::Keep(PageId page) {
  NSA_CHECK_GT(num_references(page), 0) << "nobody holds page " << page;
  At(page).is_worth_keeping = true;
}

void PagePool::Discard(PageId page) {
  Page& discarded = At(page);
  if (!discarded.is_worth_keeping) return;
  discarded.is_worth_keeping = false;
  if (discarded.num_references > 0) return;
  UnlinkKept(page);
  free_.push_back(page);
}

int64_t PagePool::num_references(PageId page) const {
  CheckId(page);
  return pages_[page].num_references;
}

void PagePool::CheckId(PageId page) const {
  NSA_CHECK(page >= 0 && page < num_pages()) << "page " << page << " of " << num_pages();
}

void PagePool::AppendKept(PageId page) {
  pages_[page].earlier = last_kept_;
  pages_[page].later = kNone;
  (last_kept_ == kNone ? first_kept_ : pages_[last_kept_].later) = page;
  last_kept_ = page;
  ++num_kept_;
}

void PagePool::UnlinkKept(PageId page) {
  const auto [num_references, is_worth_keeping, earlier, later] = pages_[page];
  (earlier == kNone ? first_kept_ : pages_[earlier].later) = later;
  (later == kNone ? last_kept_ : pages_[later].earlier) = earlier;
  --num_kept_;
}

}  // namespace nsa
