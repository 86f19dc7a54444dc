#pragma once
// TokenMatcher: finds spelled-out tokens in a text.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace nsa {

class TokenMatcher {
 public:
  struct Match {
    int32_t token = -1;     // -1: none
    int64_t num_bytes = 0;  // of the spelling
  };

  TokenMatcher();
  // Empty spellings are never found; of two equal ones the last counts.
  void Add(std::string_view spelling, int32_t token);
  // The longest token that `text` begins with. Time: the bytes that agree with some token.
  Match LongestAt(std::string_view text) const;
  // True if `text` begins a token and ends before it.
  bool IsProperPrefix(std::string_view text) const;
  bool empty() const { return tokens_.size() == 1; }

 private:
  static constexpr int32_t kRoot = 0;

  // The node behind `byte`; -1 if no token goes on with it.
  int32_t Next(int32_t node, char byte) const;

  // A trie. Key of an edge: node * 256 + byte.
  absl::flat_hash_map<int64_t, int32_t> edges_;
  std::vector<int32_t> tokens_;             // [nodes], -1: no token ends here
  std::array<bool, 256> begins_a_token_{};  // most bytes of a text begin none
};

}  // namespace nsa
