#pragma once
// PieceTrie: finds the pieces that a text begins with.

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nsa::sentencepiece {

class PieceTrie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  PieceTrie() : tokens_(1, kNone) {}

  void Insert(std::string_view piece, int32_t token);

  // The node behind this byte, or kNone.
  int32_t Child(int32_t node, char byte) const {
    const auto it = children_.find(Key(node, byte));
    return it == children_.end() ? kNone : it->second;
  }
  // The piece that ends at this node, or kNone.
  int32_t token(int32_t node) const { return tokens_[node]; }

  // Bytes of the longest piece that `text` begins with; 0 if there is none.
  int64_t LongestMatch(std::string_view text) const;

 private:
  static uint64_t Key(int32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
  }

  std::unordered_map<uint64_t, int32_t> children_;
  std::vector<int32_t> tokens_;  // by node
};

}  // namespace nsa::sentencepiece
