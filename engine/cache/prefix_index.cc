#include "engine/cache/prefix_index.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "base/check.h"

namespace nsa {

PrefixIndex::PrefixIndex(int64_t page_tokens, int64_t lookback_tokens, PagePool* pages,
                         PagePool* recent_pages)
    : page_tokens_(page_tokens),
      lookback_tokens_(lookback_tokens),
      pages_(*pages),
      recent_pages_(*recent_pages) {
  pages_.OnEviction([this](PageId page) { Erase(page); });
  recent_pages_.OnEviction([this](PageId page) { EraseRecent(page); });
}

PrefixMatch PrefixIndex::Find(std::span<const int32_t> tokens, const std::string& salt,
                              uint64_t last_step) const {
  std::vector<const Entry*> chain;
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin + page_tokens_ < num_tokens; begin += page_tokens_) {
    const uint64_t parent = chain.empty() ? 0 : chain.back()->id;
    const Entry* entry = Lookup(parent, tokens.subspan(begin, page_tokens_), salt);
    if (entry == nullptr || entry->step > last_step) break;
    chain.push_back(entry);
  }
  // Backwards to an end with all recent pages that the next token looks back at.
  int64_t run_begin = static_cast<int64_t>(chain.size());  // from here on no recent page is missing
  for (auto length = static_cast<int64_t>(chain.size()); length > 0; --length) {
    const int64_t first = FirstRecentPage(length);
    run_begin = std::min(run_begin, length);
    while (run_begin > first && chain[run_begin - 1]->recent_page != kNone) --run_begin;
    if (run_begin > first) {
      // The recent page before run_begin is missing: no end behind it that looks back at it works.
      continue;
    }
    PrefixMatch match{.first_recent_page = first, .last_entry = chain[length - 1]->id};
    for (int64_t page = 0; page < length; ++page) {
      match.pages.push_back(chain[page]->page);
      if (page >= first) match.recent_pages.push_back(chain[page]->recent_page);
    }
    return match;
  }
  return {};
}

uint64_t PrefixIndex::Insert(uint64_t parent, std::span<const int32_t> tokens,
                             const std::string& salt, PageId page, PageId recent_page,
                             uint64_t step) {
  NSA_CHECK_EQ(static_cast<int64_t>(tokens.size()), page_tokens_);
  const Key key = KeyOf(parent, tokens, salt);
  const auto [slot, is_new] = entries_.try_emplace(key);
  Entry& entry = slot->second;
  if (is_new) {
    entry.id = ++num_inserted_;
    entry.tokens.assign(tokens.begin(), tokens.end());
    if (parent == 0) entry.salt = salt;
    entry.page = page;
    entry.step = step;
    pages_.Keep(page);
    key_of_page_.emplace(page, key);
  } else if (Lookup(parent, tokens, salt) == nullptr) {
    return ++num_inserted_;  // other tokens with the same hash: an entry that nobody will find
  }
  if (entry.recent_page == kNone && recent_page != kNone) {
    entry.recent_page = recent_page;
    entry.step = std::max(entry.step, step);
    recent_pages_.Keep(recent_page);
    key_of_recent_page_.emplace(recent_page, key);
  }
  return entry.id;
}

void PrefixIndex::Forget(PageId page) {
  if (!key_of_page_.contains(page)) return;
  Erase(page);
  pages_.Discard(page);
}

void PrefixIndex::ForgetSince(uint64_t step) {
  std::vector<PageId> late;
  for (const auto& [key, entry] : entries_) {
    if (entry.step >= step) late.push_back(entry.page);
  }
  for (PageId page : late) Forget(page);
}

PrefixIndex::Key PrefixIndex::KeyOf(uint64_t parent, std::span<const int32_t> tokens,
                                    const std::string& salt) {
  const absl::Span<const int32_t> values(tokens.data(), tokens.size());
  return {parent, parent == 0 ? absl::HashOf(values, salt) : absl::HashOf(values)};
}

const PrefixIndex::Entry* PrefixIndex::Lookup(uint64_t parent, std::span<const int32_t> tokens,
                                              const std::string& salt) const {
  const auto found = entries_.find(KeyOf(parent, tokens, salt));
  if (found == entries_.end()) return nullptr;
  const Entry& entry = found->second;
  const bool is_same =
      std::equal(tokens.begin(), tokens.end(), entry.tokens.begin(), entry.tokens.end()) &&
      (parent != 0 || salt == entry.salt);
  return is_same ? &entry : nullptr;
}

// The page is about to hold something else. Its recent page is of no use without it.
void PrefixIndex::Erase(PageId page) {
  const auto key = key_of_page_.extract(page);
  NSA_CHECK(!key.empty());
  const auto entry = entries_.extract(key.mapped());
  const PageId recent_page = entry.mapped().recent_page;
  if (recent_page == kNone) return;
  key_of_recent_page_.erase(recent_page);
  recent_pages_.Discard(recent_page);
}

void PrefixIndex::EraseRecent(PageId page) {
  const auto key = key_of_recent_page_.extract(page);
  NSA_CHECK(!key.empty());
  entries_.at(key.mapped()).recent_page = kNone;
}

// The first page that a token behind num_pages pages looks back at; num_pages without a lookback.
int64_t PrefixIndex::FirstRecentPage(int64_t num_pages) const {
  if (lookback_tokens_ == 0) return num_pages;
  return std::max<int64_t>(0, num_pages * page_tokens_ - lookback_tokens_) / page_tokens_;
}

}  // namespace nsa
