#pragma once
// PrefixIndex: which cached pages hold which beginnings of sequences, so that a sequence can share
// the pages of another one that began with the same tokens. Ids and tokens only; the engine thread
// owns it.
//
// An entry is a page's worth of tokens behind the entry of all tokens before it, so a chain of
// entries is a prefix. The last tokens of a prompt, fewer than a page's worth, are an entry too:
// its page goes on to be written behind them, so whoever begins behind them takes a copy. Tokens
// are compared, not only their hashes: a hit is exact. A page that is in the index is kept by its
// pool when nobody holds it, and leaves the index when the pool needs it.
//
// A sequence that begins behind a prefix also needs the recent pages of the last lookback_tokens
// tokens of it. An entry remembers the recent page too, while that is still there;
// the prefixes that can be used end where enough of them are.

#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "engine/cache/page_pool.h"

namespace nsa {

// The longest usable prefix of a sequence.
struct PrefixMatch {
  int64_t num_tokens = 0;
  std::vector<PageId> pages;         // pages [0, pages.size()) of the sequence, to be shared
  std::vector<PageId> recent_pages;  // pages [first_recent_page, pages.size())
  int64_t first_recent_page = 0;
  uint64_t last_entry = 0;  // of the last of these pages; 0 without one
  // Of a prefix that ends inside a page: the page to be copied, and its recent page; else -1.
  PageId partial_page = -1, partial_recent_page = -1;
};

class PrefixIndex {
 public:
  // The pools outlive the index. Recent pages are looked at only with a lookback.
  PrefixIndex(int64_t page_tokens, int64_t lookback_tokens, PagePool* pages,
              PagePool* recent_pages);

  // The longest usable prefix of `tokens` that ends before its last token, among pages of steps up
  // to `last_step`. It ends inside a page only right before the last token. Prefixes with different
  // salts are different. The match holds no references.
  PrefixMatch Find(std::span<const int32_t> tokens, const std::string& salt,
                   uint64_t last_step) const;

  // Adds page `page` of a sequence behind the entry `parent` (0: its first page), with the tokens
  // in it (fewer than it holds: the end of a prompt, behind which nothing is added), its recent
  // page (or -1) and the step that computes it. Returns the entry. Where the same tokens are there
  // already, that entry stays, but for a recent page that it lacked.
  uint64_t Insert(uint64_t parent, std::span<const int32_t> tokens, const std::string& salt,
                  PageId page, PageId recent_page, uint64_t step);

  // Forgets a page of any sequence, if it is there.
  void Forget(PageId page);
  // Forgets what steps from `step` on were to compute.
  void ForgetSince(uint64_t step);

  int64_t num_pages() const { return static_cast<int64_t>(keys_of_page_.size()); }

 private:
  static constexpr PageId kNone = -1;
  // Parent entry, hash of the tokens and, for a first page, of the salt.
  using Key = std::tuple<uint64_t, size_t>;
  using Keys = absl::InlinedVector<Key, 2>;  // a full page may also be the end of a prompt
  struct Entry {
    uint64_t id = 0;
    std::vector<int32_t> tokens;
    std::string salt;  // of first pages only
    PageId page = kNone, recent_page = kNone;
    uint64_t step = 0;
  };

  static Key KeyOf(uint64_t parent, std::span<const int32_t> tokens, const std::string& salt);
  const Entry* Lookup(uint64_t parent, std::span<const int32_t> tokens,
                      const std::string& salt) const;
  bool IsUsable(const std::vector<const Entry*>& chain, int64_t first_recent_page) const;
  PrefixMatch MakeMatch(const std::vector<const Entry*>& chain, int64_t num_tokens) const;
  void Erase(PageId page);
  void DropRecent(PageId page, const Key& key);
  void EraseRecent(PageId page);
  int64_t FirstRecentPage(int64_t num_tokens) const;

  const int64_t page_tokens_, lookback_tokens_;
  PagePool& pages_;
  PagePool& recent_pages_;
  uint64_t num_inserted_ = 0;
  absl::flat_hash_map<Key, Entry> entries_;
  absl::flat_hash_map<PageId, Keys> keys_of_page_, keys_of_recent_page_;
};

}  // namespace nsa
