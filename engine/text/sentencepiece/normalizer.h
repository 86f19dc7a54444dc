#pragma once
// Normalizer: what happens to a text before it is split into pieces: Unicode rules, white space,
// the space in front.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/sentencepiece/piece_trie.h"
#include "engine/text/sentencepiece/vocabulary.h"

namespace nsa::sentencepiece {

class Normalizer {
 public:
  // INVALID_ARGUMENT: the precompiled rules are cut off.
  static absl::StatusOr<Normalizer> Create(const Vocabulary& vocabulary);

  // Precondition: valid UTF-8. User-defined symbols pass unchanged.
  std::string Normalize(std::string_view text) const;

  // User-defined symbols, which also are never split.
  const PieceTrie& symbols() const { return symbols_; }

 private:
  // One step: `text` is what the first `num_bytes` bytes of the input become.
  struct Step {
    std::string_view text;
    int64_t num_bytes;
  };
  Step NormalizeFront(std::string_view text) const;
  // The longest rule that matches, as the offset of its result; false if none does.
  bool FindRule(std::string_view text, Step* step) const;
  absl::Status ReadRules(std::string_view charsmap);

  NormalizerSpec spec_;
  bool whitespace_as_suffix_ = false;
  PieceTrie symbols_;
  std::vector<uint32_t> rules_;  // a double-array trie (Darts)
  std::string results_;          // NUL-terminated results of the rules
};

}  // namespace nsa::sentencepiece
