#include "engine/text/hf/added_tokens.h"

#include "base/status.h"

namespace nsa::hf {
namespace {

absl::StatusOr<AddedToken> ParseAddedToken(const JsonNode& node) {
  AddedToken token;
  NSA_ASSIGN_OR_RETURN(token.content, node.Member("content").String());
  if (token.content.empty()) return node.Member("content").Invalid("a text that is not empty");
  NSA_ASSIGN_OR_RETURN(const int64_t id, node.Member("id").Integer(0, kMaxTokenId));
  token.id = static_cast<int32_t>(id);
  NSA_ASSIGN_OR_RETURN(token.is_special, node.Member("special").Bool(false));
  NSA_ASSIGN_OR_RETURN(token.is_normalized, node.Member("normalized").Bool(!token.is_special));
  for (const char* key : {"lstrip", "rstrip", "single_word"}) {
    const JsonNode flag_node = node.Member(key);
    NSA_ASSIGN_OR_RETURN(const bool flag, flag_node.Bool(false));
    if (flag) return flag_node.Unsupported("false");
  }
  return token;
}

// Splits `text` at the longest tokens, from the left.
absl::Status SplitAt(const TokenMatcher& matcher, std::string_view text,
                     const AddedTokenSplitter::OnText& on_text,
                     const AddedTokenSplitter::OnToken& on_token) {
  size_t begin = 0;
  for (size_t i = 0; !matcher.empty() && i < text.size();) {
    const TokenMatcher::Match match = matcher.LongestAt(text.substr(i));
    if (match.token < 0) {
      ++i;
      continue;
    }
    if (i > begin) NSA_RETURN_IF_ERROR(on_text(text.substr(begin, i - begin)));
    on_token(match.token);
    i += match.num_bytes;
    begin = i;
  }
  return begin < text.size() ? on_text(text.substr(begin)) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const JsonNode& node) {
  std::vector<AddedToken> tokens;
  NSA_ASSIGN_OR_RETURN(const auto elements, node.Elements());
  for (const JsonNode& element : elements) {
    NSA_ASSIGN_OR_RETURN(tokens.emplace_back(), ParseAddedToken(element));
  }
  return tokens;
}

AddedTokenSplitter::AddedTokenSplitter(const std::vector<AddedToken>& tokens,
                                       const Normalizer& normalizer)
    : normalizer_(normalizer) {
  for (const AddedToken& token : tokens) {
    if (token.is_special) continue;
    if (token.is_normalized) {
      normalized_.Add(normalizer_.Normalized(token.content), token.id);
    } else {
      raw_.Add(token.content, token.id);
    }
  }
}

absl::Status AddedTokenSplitter::Split(std::string_view text, const OnText& on_text,
                                       const OnToken& on_token) const {
  const auto split_normalized = [&](std::string_view raw) {
    return SplitAt(normalized_, normalizer_.Normalized(raw), on_text, on_token);
  };
  return SplitAt(raw_, text, split_normalized, on_token);
}

}  // namespace nsa::hf
