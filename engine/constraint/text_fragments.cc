#include "engine/constraint/text_fragments.h"

#include <array>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"

namespace nsa::constraint {
namespace {

void AddByte(Grammar* grammar, char byte, StateId from, StateId to) {
  grammar->AddBytes(from, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), to);
}

void AddHexDigit(Grammar* grammar, StateId from, StateId to) {
  grammar->AddBytes(from, '0', '9', to);
  grammar->AddBytes(from, 'A', 'F', to);
  grammar->AddBytes(from, 'a', 'f', to);
}

void AddHexDigits(Grammar* grammar, int num_digits, StateId from, StateId to) {
  for (int i = 0; i < num_digits; ++i) {
    const StateId next = i + 1 == num_digits ? to : grammar->AddState();
    AddHexDigit(grammar, from, next);
    from = next;
  }
}

// Sequences that end alike share the states of their ends.
void AddUtf8(Grammar* grammar, const CodePointSet& set, StateId from, StateId to) {
  std::map<ByteSequence, StateId> suffixes;
  const auto suffix_state = [&](const ByteSequence& sequence, size_t begin) {
    StateId next = to;
    for (size_t i = sequence.size(); i > begin; --i) {
      const ByteSequence suffix(sequence.begin() + static_cast<int64_t>(i) - 1, sequence.end());
      const auto [it, is_new] = suffixes.try_emplace(suffix, 0);
      if (is_new) {
        it->second = grammar->AddState();
        grammar->AddBytes(it->second, suffix[0].low, suffix[0].high, next);
      }
      next = it->second;
    }
    return next;
  };
  for (const ByteSequence& sequence : Utf8Sequences(set)) {
    grammar->AddBytes(from, sequence[0].low, sequence[0].high, suffix_state(sequence, 1));
  }
}

const CodePointSet& MustEscape() {
  static const CodePointSet& set = *new CodePointSet{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  return set;
}

std::string ShortestEscape(uint32_t code_point) {
  switch (code_point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return absl::StrFormat("\\u%04x", code_point);
  }
}

void AddShortestJson(Grammar* grammar, const CodePointSet& set, StateId from, StateId to) {
  AddUtf8(grammar, Difference(set, MustEscape()), from, to);
  std::vector<std::string> escapes;
  for (const CodePointRange& range : MustEscape()) {
    for (uint32_t c = range.low; c <= range.high; ++c) {
      if (Contains(set, c)) escapes.push_back(ShortestEscape(c));
    }
  }
  AddAnyText(grammar, escapes, from, to);
}

// What follows "\u": four digits, or a high surrogate with the low one that it needs.
void AddUnicodeEscape(Grammar* grammar, StateId from, StateId to) {
  const StateId other = grammar->AddState();
  grammar->AddBytes(from, '0', '9', other);
  for (const char base : {'A', 'a'}) {
    grammar->AddBytes(from, base, base + 2, other);
    grammar->AddBytes(from, base + 4, base + 5, other);
  }
  AddHexDigits(grammar, 3, other, to);

  const StateId after_d = grammar->AddState();
  const StateId low_tail = grammar->AddState();
  const StateId high_tail = grammar->AddState();
  const StateId second = grammar->AddState();
  const StateId second_d = grammar->AddState();
  const StateId second_tail = grammar->AddState();
  for (const char base : {'A', 'a'}) {
    grammar->AddBytes(from, base + 3, base + 3, after_d);
    grammar->AddBytes(after_d, base, base + 1, high_tail);
    grammar->AddBytes(second_d, base + 2, base + 5, second_tail);
  }
  grammar->AddBytes(after_d, '0', '7', low_tail);
  AddHexDigits(grammar, 2, low_tail, to);
  grammar->AddBytes(after_d, '8', '9', high_tail);
  AddHexDigits(grammar, 2, high_tail, second);
  const StateId second_digit = grammar->AddState();
  AddText(grammar, "\\u", second, second_digit);
  grammar->AddBytes(second_digit, 'D', 'D', second_d);
  grammar->AddBytes(second_digit, 'd', 'd', second_d);
  AddHexDigits(grammar, 2, second_tail, to);
}

}  // namespace

void AddText(Grammar* grammar, std::string_view text, StateId from, StateId to) {
  if (text.empty()) return grammar->AddEpsilon(from, to);
  for (size_t i = 0; i < text.size(); ++i) {
    const StateId next = i + 1 == text.size() ? to : grammar->AddState();
    AddByte(grammar, text[i], from, next);
    from = next;
  }
}

void AddCodePoint(Grammar* grammar, const CodePointSet& set, TextEncoding encoding, StateId from,
                  StateId to) {
  if (encoding == TextEncoding::kPlain) {
    AddUtf8(grammar, set, from, to);
  } else {
    AddShortestJson(grammar, set, from, to);
  }
}

void AddAnyText(Grammar* grammar, const std::vector<std::string>& texts, StateId from, StateId to) {
  std::map<std::pair<StateId, char>, StateId> children;
  for (const std::string& text : texts) {
    if (grammar->over_limit()) return;
    if (text.empty()) {
      grammar->AddEpsilon(from, to);
      continue;
    }
    StateId state = from;
    for (const char byte : std::string_view(text).substr(0, text.size() - 1)) {
      const auto [it, is_new] = children.try_emplace({state, byte}, 0);
      if (is_new) {
        it->second = grammar->AddState();
        AddByte(grammar, byte, state, it->second);
      }
      state = it->second;
    }
    AddByte(grammar, text.back(), state, to);
  }
}

void AddJsonCharacter(Grammar* grammar, StateId from, StateId to) {
  AddUtf8(grammar, Complement(MustEscape()), from, to);
  const StateId escape = grammar->AddState();
  AddByte(grammar, '\\', from, escape);
  for (const char byte : std::string_view("\"\\/bfnrt")) AddByte(grammar, byte, escape, to);
  const StateId unicode = grammar->AddState();
  AddByte(grammar, 'u', escape, unicode);
  AddUnicodeEscape(grammar, unicode, to);
}

void AddJsonString(Grammar* grammar, int64_t min_length, std::optional<int64_t> max_length,
                   StateId from, StateId to) {
  StateId state = grammar->AddState();
  AddByte(grammar, '"', from, state);
  const int64_t num_counted = max_length.value_or(min_length);
  for (int64_t i = 0; i < num_counted && !grammar->over_limit(); ++i) {
    if (i >= min_length) AddByte(grammar, '"', state, to);
    const StateId next = grammar->AddState();
    AddJsonCharacter(grammar, state, next);
    state = next;
  }
  if (!max_length) AddJsonCharacter(grammar, state, state);
  if (num_counted >= min_length) AddByte(grammar, '"', state, to);
}

void AddOtherJsonString(Grammar* grammar, const std::vector<std::string>& excluded, StateId from,
                        StateId to) {
  struct Node {
    StateId state;
    bool is_excluded = false;
    std::map<uint32_t, size_t> children;
  };
  std::vector<Node> nodes;
  nodes.push_back({grammar->AddState()});
  for (const std::string& text : excluded) {
    std::vector<uint32_t> code_points;
    NSA_CHECK(DecodeUtf8(text, &code_points)) << "an excluded string is not UTF-8";
    size_t node = 0;
    for (const uint32_t c : code_points) {
      const auto [it, is_new] = nodes[node].children.try_emplace(c, nodes.size());
      node = it->second;
      if (is_new) nodes.push_back({grammar->AddState()});
      if (grammar->over_limit()) return;
    }
    nodes[node].is_excluded = true;
  }
  AddByte(grammar, '"', from, nodes[0].state);
  const StateId free = grammar->AddState();
  AddShortestJson(grammar, AllCodePoints(), free, free);
  AddByte(grammar, '"', free, to);
  for (const Node& node : nodes) {
    std::vector<CodePointRange> taken;
    for (const auto& [code_point, child] : node.children) {
      taken.push_back({code_point, code_point});
      AddShortestJson(grammar, {taken.back()}, node.state, nodes[child].state);
    }
    AddShortestJson(grammar, Complement(MakeSet(std::move(taken))), node.state, free);
    if (!node.is_excluded) AddByte(grammar, '"', node.state, to);
    if (grammar->over_limit()) return;
  }
}

}  // namespace nsa::constraint
