#include "engine/cache/page_pool.h"

#include "base/check.h"

namespace nsa {

PagePool::PagePool(int64_t num_pages) : references_(num_pages, 0) {
  free_.reserve(num_pages);
  for (int64_t page = num_pages - 1; page >= 0; --page) free_.push_back(static_cast<PageId>(page));
}

std::optional<PageId> PagePool::Acquire() {
  if (free_.empty()) return std::nullopt;
  const PageId page = free_.back();
  free_.pop_back();
  references_[page] = 1;
  return page;
}

void PagePool::Share(PageId page) {
  NSA_CHECK_GT(num_references(page), 0) << "page " << page << " is free";
  ++references_[page];
}

void PagePool::Release(PageId page) {
  NSA_CHECK_GT(num_references(page), 0) << "page " << page << " is free";
  if (--references_[page] == 0) free_.push_back(page);
}

int64_t PagePool::num_references(PageId page) const {
  NSA_CHECK(page >= 0 && page < num_pages()) << "page " << page << " of " << num_pages();
  return references_[page];
}

}  // namespace nsa
