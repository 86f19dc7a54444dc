#pragma once
// BpeModel: byte-pair encoding of one word. Immutable, so thread-safe.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace nsa::hf {

// Two neighbours that become one token. Earlier merges of a list win over later ones.
struct BpeMerge {
  int32_t left, right, result;
};

struct BpeSpec {
  struct Token {
    std::string bytes;          // what it adds to a text
    bool is_encodable = false;  // may come out of Encode; control tokens and holes may not
  };
  std::vector<Token> tokens;     // index: id
  std::vector<BpeMerge> merges;  // by falling priority; a pair that comes twice has its last place
  bool ignore_merges = false;    // a word that is a token becomes that token, merges or not
};

class BpeModel {
 public:
  // Memory that calls of one thread reuse.
  class Scratch {
   private:
    friend class BpeModel;
    struct Symbol {
      int32_t token;
      int32_t previous, next;  // -1: none; a symbol that was merged away has token -1
    };
    struct Candidate {
      int32_t rank, position, result;
    };
    std::vector<Symbol> symbols_;
    std::vector<Candidate> candidates_;  // a heap
  };

  // INVALID_ARGUMENT: a byte that valid UTF-8 can contain has no token.
  static absl::StatusOr<BpeModel> Make(BpeSpec spec);

  // Appends the tokens of `word` (UTF-8, at most 2^31 bytes). Time: O(bytes * log(bytes)).
  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* tokens) const;

 private:
  struct Merge {
    int32_t rank, result;
  };

  BpeModel() = default;
  void AddMerges(const BpeSpec& spec);
  void AddWholeWords(const BpeSpec& spec);
  void Merged(std::string_view word, Scratch* scratch, std::vector<int32_t>* tokens) const;
  void Consider(int32_t position, Scratch* scratch) const;
  void Apply(const Scratch::Candidate& candidate, Scratch* scratch) const;

  std::array<int32_t, 256> token_of_byte_{};     // -1: none
  absl::flat_hash_map<uint64_t, Merge> merges_;  // key: left << 32 | right
  // Words that are one token in the end: most of a usual text. Answers the same as merging would.
  absl::flat_hash_map<std::string, int32_t> whole_words_;
};

}  // namespace nsa::hf
