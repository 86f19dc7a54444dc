#include "engine/text/token_matcher.h"

namespace nsa {
namespace {

int64_t EdgeKey(int32_t node, char byte) {
  return int64_t{node} * 256 + static_cast<uint8_t>(byte);
}

}  // namespace

TokenMatcher::TokenMatcher() : tokens_{-1} {}

void TokenMatcher::Add(std::string_view spelling, int32_t token) {
  if (spelling.empty()) return;
  begins_a_token_[static_cast<uint8_t>(spelling[0])] = true;
  int32_t node = kRoot;
  for (const char byte : spelling) {
    const auto [edge, is_new] =
        edges_.try_emplace(EdgeKey(node, byte), static_cast<int32_t>(tokens_.size()));
    node = edge->second;
    if (is_new) tokens_.push_back(-1);
  }
  tokens_[node] = token;
}

int32_t TokenMatcher::Next(int32_t node, char byte) const {
  const auto edge = edges_.find(EdgeKey(node, byte));
  return edge == edges_.end() ? -1 : edge->second;
}

TokenMatcher::Match TokenMatcher::LongestAt(std::string_view text) const {
  Match longest;
  if (text.empty() || !begins_a_token_[static_cast<uint8_t>(text[0])]) return longest;
  int32_t node = kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = Next(node, text[i]);
    if (node < 0) break;
    if (tokens_[node] >= 0) longest = {tokens_[node], static_cast<int64_t>(i) + 1};
  }
  return longest;
}

bool TokenMatcher::IsProperPrefix(std::string_view text) const {
  if (text.empty() || !begins_a_token_[static_cast<uint8_t>(text[0])]) return false;
  int32_t node = kRoot;
  for (const char byte : text) {
    node = Next(node, byte);
    if (node < 0) return false;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (Next(node, static_cast<char>(byte)) >= 0) return true;
  }
  return false;
}

}  // namespace nsa
