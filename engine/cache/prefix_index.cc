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
  const int64_t num_usable = std::ssize(tokens) - 1;
  std::vector<const Entry*> chain;
  for (int64_t begin = 0; begin < num_usable; begin += page_tokens_) {
    const uint64_t parent = chain.empty() ? 0 : chain.back()->id;
    const int64_t num_in_page = std::min(page_tokens_, num_usable - begin);
    const Entry* entry = Lookup(parent, tokens.subspan(begin, num_in_page), salt);
    if (entry == nullptr || entry->step > last_step) break;
    chain.push_back(entry);
  }
  // Backwards to an end with all recent pages that the next token looks back at.
  for (; !chain.empty(); chain.pop_back()) {
    const int64_t num_tokens = std::min(std::ssize(chain) * page_tokens_, num_usable);
    if (IsUsable(chain, FirstRecentPage(num_tokens))) return MakeMatch(chain, num_tokens);
  }
  return {};
}

bool PrefixIndex::IsUsable(const std::vector<const Entry*>& chain,
                           int64_t first_recent_page) const {
  return std::all_of(chain.begin() + first_recent_page, chain.end(),
                     [](const Entry* entry) { return entry->recent_page != kNone; });
}

PrefixMatch PrefixIndex::MakeMatch(const std::vector<const Entry*>& chain,
                                   int64_t num_tokens) const {
  PrefixMatch match{.num_tokens = num_tokens, .first_recent_page = FirstRecentPage(num_tokens)};
  const int64_t num_full_pages = num_tokens / page_tokens_;
  for (int64_t page = 0; page < num_full_pages; ++page) {
    match.pages.push_back(chain[page]->page);
    match.last_entry = chain[page]->id;
    if (page >= match.first_recent_page) match.recent_pages.push_back(chain[page]->recent_page);
  }
  if (num_full_pages < std::ssize(chain)) {
    match.partial_page = chain.back()->page;
    match.partial_recent_page = chain.back()->recent_page;
  }
  return match;
}

uint64_t PrefixIndex::Insert(uint64_t parent, std::span<const int32_t> tokens,
                             const std::string& salt, PageId page, PageId recent_page,
                             uint64_t step) {
  NSA_CHECK(!tokens.empty() && std::ssize(tokens) <= page_tokens_) << tokens.size() << " tokens";
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
    keys_of_page_[page].push_back(key);
  } else if (Lookup(parent, tokens, salt) == nullptr) {
    return ++num_inserted_;  // other tokens with the same hash: an entry that nobody will find
  }
  if (entry.recent_page == kNone && recent_page != kNone) {
    entry.recent_page = recent_page;
    entry.step = std::max(entry.step, step);
    recent_pages_.Keep(recent_page);
    keys_of_recent_page_[recent_page].push_back(key);
  }
  return entry.id;
}

void PrefixIndex::Forget(PageId page) {
  if (!keys_of_page_.contains(page)) return;
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
  const auto keys = keys_of_page_.extract(page);
  NSA_CHECK(!keys.empty());
  for (const Key& key : keys.mapped()) {
    const auto entry = entries_.extract(key);
    if (entry.mapped().recent_page != kNone) DropRecent(entry.mapped().recent_page, key);
  }
}

// An entry is gone: its recent page is not worth keeping unless another entry has it, too.
void PrefixIndex::DropRecent(PageId page, const Key& key) {
  Keys& keys = keys_of_recent_page_.at(page);
  keys.erase(std::find(keys.begin(), keys.end(), key));
  if (!keys.empty()) return;
  keys_of_recent_page_.erase(page);
  recent_pages_.Discard(page);
}

void PrefixIndex::EraseRecent(PageId page) {
  const auto keys = keys_of_recent_page_.extract(page);
  NSA_CHECK(!keys.empty());
  for (const Key& key : keys.mapped()) entries_.at(key).recent_page = kNone;
}

// The first page that a token behind num_tokens tokens looks back at; without a lookback none of
// theirs.
int64_t PrefixIndex::FirstRecentPage(int64_t num_tokens) const {
  if (lookback_tokens_ == 0) return (num_tokens + page_tokens_ - 1) / page_tokens_;
  return std::max<int64_t>(0, num_tokens - lookback_tokens_) / page_tokens_;
}

}  // namespace nsa
