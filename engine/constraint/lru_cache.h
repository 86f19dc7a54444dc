#pragma once
// LruCache: values by key within a bound of bytes; the least recently used go first.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace nsa {

// Not thread-safe.
template <typename Value>
class LruCache {
 public:
  // bytes_of: of a value, without its key; asked anew at every Put, for values may grow.
  LruCache(int64_t max_bytes, std::function<int64_t(const Value&)> bytes_of)
      : max_bytes_(max_bytes), bytes_of_(std::move(bytes_of)) {}

  // The value, which becomes the last used; null if there is none. Valid until the next Put or
  // Erase.
  Value* Find(const std::string& key) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, it->second);
    return &entries_.front().value;
  }

  // Becomes the last used, and stays however large it is.
  void Put(const std::string& key, Value value) {
    Erase(key);
    entries_.push_front({key, std::move(value)});
    by_key_[key] = entries_.begin();
    int64_t num_bytes = 0;
    for (auto it = entries_.begin(); it != entries_.end();) {
      num_bytes += static_cast<int64_t>(it->key.size()) + bytes_of_(it->value);
      if (num_bytes <= max_bytes_ || it == entries_.begin()) {
        ++it;
      } else {
        by_key_.erase(it->key);
        it = entries_.erase(it);
      }
    }
  }

  void Erase(const std::string& key) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) return;
    entries_.erase(it->second);
    by_key_.erase(it);
  }

  // Of the values for which `may_go` is true the least recently used one. False: there is none.
  bool EraseOldest(const std::function<bool(const Value&)>& may_go) {
    const auto it = std::find_if(entries_.rbegin(), entries_.rend(),
                                 [&](const Entry& entry) { return may_go(entry.value); });
    if (it == entries_.rend()) return false;
    Erase(std::string(it->key));
    return true;
  }

  int64_t num_entries() const { return static_cast<int64_t>(entries_.size()); }

 private:
  struct Entry {
    std::string key;
    Value value;
  };
  using Entries = std::list<Entry>;  // the last used first

  const int64_t max_bytes_;
  const std::function<int64_t(const Value&)> bytes_of_;
  Entries entries_;
  absl::flat_hash_map<std::string, typename Entries::iterator> by_key_;
};

}  // namespace nsa
