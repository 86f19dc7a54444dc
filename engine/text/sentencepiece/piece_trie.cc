#include "engine/text/sentencepiece/piece_trie.h"

namespace nsa::sentencepiece {

void PieceTrie::Insert(std::string_view piece, int32_t token) {
  int32_t node = kRoot;
  for (const char byte : piece) {
    const auto next = static_cast<int32_t>(tokens_.size());
    const auto [it, is_new] = children_.emplace(Key(node, byte), next);
    if (is_new) tokens_.push_back(kNone);
    node = it->second;
  }
  tokens_[node] = token;
}

int64_t PieceTrie::LongestMatch(std::string_view text) const {
  int64_t longest = 0;
  int32_t node = kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = Child(node, text[i]);
    if (node == kNone) break;
    if (tokens_[node] != kNone) longest = static_cast<int64_t>(i) + 1;
  }
  return longest;
}

}  // namespace nsa::sentencepiece
