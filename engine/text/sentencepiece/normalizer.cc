#include "engine/text/sentencepiece/normalizer.h"

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "base/status.h"
#include "engine/text/utf8.h"

namespace nsa::sentencepiece {
namespace {

// A unit of the double array: fields packed as Darts-clone packs them.
struct Unit {
  uint32_t bits;
  bool has_leaf() const { return ((bits >> 8) & 1) == 1; }
  uint32_t value() const { return bits & 0x7FFFFFFFU; }
  uint32_t label() const { return bits & 0x800000FFU; }
  uint32_t offset() const { return (bits >> 10) << ((bits & (1U << 9)) >> 6); }
};

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Create(const Vocabulary& vocabulary) {
  Normalizer normalizer;
  normalizer.spec_ = vocabulary.normalizer;
  normalizer.whitespace_as_suffix_ = vocabulary.whitespace_as_suffix;
  NSA_RETURN_IF_ERROR(normalizer.ReadRules(vocabulary.normalizer.charsmap));
  for (size_t token = 0; token < vocabulary.pieces.size(); ++token) {
    const Piece& piece = vocabulary.pieces[token];
    if (piece.type != PieceType::kUserDefined) continue;
    normalizer.symbols_.Insert(piece.text, static_cast<int32_t>(token));
  }
  return normalizer;
}

// Layout: u32 bytes of the trie, the trie, the results; little-endian.
absl::Status Normalizer::ReadRules(std::string_view charsmap) {
  if (charsmap.empty()) return absl::OkStatus();
  uint32_t trie_bytes = 0;
  const bool has_header = charsmap.size() > sizeof(trie_bytes);
  if (has_header) std::memcpy(&trie_bytes, charsmap.data(), sizeof(trie_bytes));
  charsmap.remove_prefix(std::min(sizeof(trie_bytes), charsmap.size()));
  if (!has_header || trie_bytes < sizeof(uint32_t) || trie_bytes % sizeof(uint32_t) != 0 ||
      trie_bytes >= charsmap.size() || charsmap.back() != '\0') {
    return absl::InvalidArgumentError("the normalization rules are cut off");
  }
  rules_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(rules_.data(), charsmap.data(), trie_bytes);
  results_ = charsmap.substr(trie_bytes);
  return absl::OkStatus();
}

bool Normalizer::FindRule(std::string_view text, Step* step) const {
  if (rules_.empty()) return false;
  bool found = false;
  uint32_t position = Unit{rules_[0]}.offset();
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    position ^= byte;
    if (position >= rules_.size() || Unit{rules_[position]}.label() != byte) break;
    const Unit unit{rules_[position]};
    position ^= unit.offset();
    if (!unit.has_leaf()) continue;
    if (position >= rules_.size()) break;
    const uint32_t result = Unit{rules_[position]}.value();
    if (result >= results_.size()) break;
    // results_ ends with a NUL, so the result does too.
    *step = {.text = results_.data() + result, .num_bytes = static_cast<int64_t>(i) + 1};
    found = true;
  }
  return found;
}

Normalizer::Step Normalizer::NormalizeFront(std::string_view text) const {
  const int64_t symbol_bytes = symbols_.LongestMatch(text);
  if (symbol_bytes > 0) return {text.substr(0, symbol_bytes), symbol_bytes};
  Step step{};
  if (FindRule(text, &step)) return step;
  const int64_t num_bytes = ScanUtf8(text).num_bytes;
  return {text.substr(0, num_bytes), num_bytes};
}

std::string Normalizer::Normalize(std::string_view text) const {
  const std::string space(spec_.escape_whitespaces ? kSpaceSymbol : " ");
  const bool collapses = spec_.remove_extra_whitespaces;
  while (collapses && !text.empty()) {
    const Step step = NormalizeFront(text);
    if (step.text != " ") break;
    text.remove_prefix(step.num_bytes);
  }
  if (text.empty()) return {};

  std::string normalized;
  if (spec_.add_dummy_prefix && !whitespace_as_suffix_) normalized += space;
  bool follows_space = collapses;
  while (!text.empty()) {
    Step step = NormalizeFront(text);
    text.remove_prefix(step.num_bytes);
    while (follows_space && step.text.starts_with(' ')) step.text.remove_prefix(1);
    for (const char byte : step.text) {
      if (byte == ' ') {
        normalized += space;
      } else {
        normalized += byte;
      }
    }
    if (!step.text.empty()) follows_space = collapses && step.text.ends_with(' ');
  }
  while (collapses && normalized.ends_with(space)) {
    normalized.erase(normalized.size() - space.size());
  }
  if (spec_.add_dummy_prefix && whitespace_as_suffix_) normalized += space;
  return normalized;
}

}  // namespace nsa::sentencepiece
