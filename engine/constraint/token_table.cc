#include "engine/constraint/token_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/constraint/code_points.h"

namespace nsa {
namespace {

// Sorted by bytes, tokens with a common beginning are neighbours, and a beginning comes before
// what continues it.
std::vector<int32_t> SortedByBytes(const std::vector<std::string>& bytes,
                                   std::vector<int32_t> tokens) {
  std::sort(tokens.begin(), tokens.end(), [&bytes](int32_t a, int32_t b) {
    return bytes[a] != bytes[b] ? bytes[a] < bytes[b] : a < b;
  });
  return tokens;
}

TokenTrie BuildTrie(const std::vector<std::string>& bytes, std::vector<int32_t> tokens) {
  TokenTrie trie;
  trie.tokens = SortedByBytes(bytes, std::move(tokens));
  trie.roots.fill(-1);
  std::vector<int32_t> path;  // open nodes, outermost first
  const auto close_to = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      trie.nodes[path.back()].subtree_end = static_cast<int32_t>(trie.nodes.size());
    }
  };
  for (size_t i = 0; i < trie.tokens.size(); ++i) {
    const std::string& text = bytes[trie.tokens[i]];
    size_t shared = 0;
    while (shared < path.size() && shared < text.size() &&
           trie.nodes[path[shared]].byte == static_cast<uint8_t>(text[shared])) {
      ++shared;
    }
    close_to(shared);
    if (shared == 0) {
      trie.roots[static_cast<uint8_t>(text[0])] = static_cast<int32_t>(trie.nodes.size());
    }
    for (size_t depth = shared; depth < text.size(); ++depth) {
      path.push_back(static_cast<int32_t>(trie.nodes.size()));
      trie.nodes.push_back(
          {.depth = static_cast<uint16_t>(depth), .byte = static_cast<uint8_t>(text[depth])});
    }
    TokenTrie::Node& node = trie.nodes[path.back()];
    if (node.first_token < 0) node.first_token = static_cast<int32_t>(i);
    ++node.num_tokens;
    trie.max_depth = std::max(trie.max_depth, static_cast<int64_t>(text.size()));
  }
  close_to(0);
  return trie;
}

// Code points of a text token; 0: it is none.
int64_t NumTextCodePoints(const std::string& bytes) {
  std::vector<uint32_t> code_points;
  if (!constraint::DecodeUtf8(bytes, &code_points)) return 0;
  const auto num_code_points = static_cast<int64_t>(code_points.size());
  const bool is_text = num_code_points <= TokenTable::kMaxTextCodePoints &&
                       std::all_of(code_points.begin(), code_points.end(), TokenTable::IsText);
  return is_text ? num_code_points : 0;
}

}  // namespace

bool TokenTable::IsText(uint32_t code_point) {
  return code_point >= ' ' && code_point != '"' && code_point != '\\' && code_point != 0x2028 &&
         code_point != 0x2029;
}

absl::StatusOr<std::shared_ptr<const TokenTable>> TokenTable::Create(
    const std::vector<std::string>& token_bytes, std::span<const int32_t> eos_tokens) {
  const auto num_tokens = static_cast<int64_t>(token_bytes.size());
  if (num_tokens == 0) return absl::InvalidArgumentError("the vocabulary is empty");
  std::shared_ptr<TokenTable> table(new TokenTable());
  table->bytes_ = token_bytes;
  for (const int32_t token : eos_tokens) {
    if (token < 0 || token >= num_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("end-of-sequence token ", token, " is outside of [0, ", num_tokens, ")"));
    }
    table->bytes_[token].clear();
    table->eos_tokens_.push_back(token);
  }
  std::vector<int32_t> tokens;
  for (int32_t token = 0; token < num_tokens; ++token) {
    const auto num_bytes = static_cast<int64_t>(table->bytes_[token].size());
    if (num_bytes > kMaxTokenBytes) {
      return absl::InvalidArgumentError(absl::StrCat("token ", token, " has ", num_bytes,
                                                     " bytes, the limit is ", kMaxTokenBytes));
    }
    if (num_bytes > 0) tokens.push_back(token);
  }
  table->trie_ = BuildTrie(table->bytes_, std::move(tokens));
  table->FindText();
  return std::shared_ptr<const TokenTable>(std::move(table));
}

absl::StatusOr<std::shared_ptr<const TokenTable>> TokenTable::Create(
    const Tokenizer& tokenizer, std::span<const int32_t> eos_tokens) {
  std::vector<std::string> token_bytes;
  for (int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
    token_bytes.push_back(tokenizer.TokenBytes(token));
  }
  return Create(token_bytes, eos_tokens);
}

bool TokenTable::is_eos(int32_t token) const {
  return std::find(eos_tokens_.begin(), eos_tokens_.end(), token) != eos_tokens_.end();
}

void TokenTable::FindText() {
  const int64_t num_words = num_mask_words();
  text_masks_.assign((kMaxTextCodePoints + 1) * num_words, 0);
  std::vector<int32_t> others;
  for (int32_t token = 0; token < vocab_size(); ++token) {
    if (bytes_[token].empty()) continue;
    const int64_t num_code_points = NumTextCodePoints(bytes_[token]);
    if (num_code_points == 0) {
      others.push_back(token);
      continue;
    }
    for (int64_t count = num_code_points; count <= kMaxTextCodePoints; ++count) {
      text_masks_[count * num_words + token / 32] |= 1U << (token % 32);
    }
  }
  trie_without_text_ = BuildTrie(bytes_, std::move(others));
}

std::span<const uint32_t> TokenTable::text_mask(int64_t num_code_points) const {
  return std::span(text_masks_).subspan(num_code_points * num_mask_words(), num_mask_words());
}

}  // namespace nsa
