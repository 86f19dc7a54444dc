#pragma once
// TokenTable: the bytes of every token of a model, arranged so that the tokens an automaton allows
// are found without trying them one by one. Built once per model; immutable, thread-safe.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace nsa {

// Tokens by their bytes: nodes in depth-first order, so that a subtree is one run of nodes.
struct TokenTrie {
  struct Node {
    int32_t subtree_end = 0;   // index behind the last node below this one
    int32_t first_token = -1;  // index into `tokens`; -1: no token ends here
    int32_t num_tokens = 0;    // with the same bytes
    uint16_t depth = 0;        // bytes above this node
    uint8_t byte = 0;
  };
  std::vector<Node> nodes;
  std::array<int32_t, 256> roots = {};  // node of a first byte; -1: no token begins with it
  std::vector<int32_t> tokens;
  int64_t max_depth = 0;  // bytes of the longest token
};

class TokenTable {
 public:
  static constexpr int64_t kMaxTokenBytes = 4096;
  // Text tokens of up to this many code points are kept as ready masks.
  static constexpr int64_t kMaxTextCodePoints = 16;

  // token_bytes[id]: what a token adds to a text; empty: a token that no constraint ever allows.
  // eos_tokens: ids that end an output; their bytes do not count. INVALID_ARGUMENT: no tokens, ids
  // out of range, or a token over kMaxTokenBytes.
  static absl::StatusOr<std::shared_ptr<const TokenTable>> Create(
      const std::vector<std::string>& token_bytes, std::span<const int32_t> eos_tokens);
  // The same from a tokenizer; its control tokens have no bytes.
  static absl::StatusOr<std::shared_ptr<const TokenTable>> Create(
      const Tokenizer& tokenizer, std::span<const int32_t> eos_tokens);

  int64_t vocab_size() const { return static_cast<int64_t>(bytes_.size()); }
  int64_t num_mask_words() const { return (vocab_size() + 31) / 32; }
  const std::string& bytes(int32_t token) const { return bytes_[token]; }
  const std::vector<int32_t>& eos_tokens() const { return eos_tokens_; }
  bool is_eos(int32_t token) const;

  // Every token with bytes, and those of them that are not text tokens (below).
  const TokenTrie& trie() const { return trie_; }
  const TokenTrie& trie_without_text() const { return trie_without_text_; }

  // A text token consists of 1 to kMaxTextCodePoints whole code points of IsText. Words of the mask
  // of those with at most `num_code_points`, 0 <= num_code_points <= kMaxTextCodePoints.
  std::span<const uint32_t> text_mask(int64_t num_code_points) const;
  // What stands in JSON strings and on one line without more ado: no control character, line end,
  // quote or backslash.
  static bool IsText(uint32_t code_point);

 private:
  TokenTable() = default;
  void FindText();

  std::vector<std::string> bytes_;
  std::vector<int32_t> eos_tokens_;
  TokenTrie trie_;
  TokenTrie trie_without_text_;
  std::vector<uint32_t> text_masks_;  // [kMaxTextCodePoints + 1, num_mask_words]
};

}  // namespace nsa
