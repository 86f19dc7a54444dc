#include "engine/constraint/regex_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa::constraint {
namespace {

constexpr int32_t kMaxCount = 100'000;  // more copies pass the limit of states anyway

CodePointSet Digits() { return {{'0', '9'}}; }
CodePointSet WordCharacters() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }
CodePointSet LineEnds() { return {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}; }
CodePointSet Spaces() {
  return MakeSet({{'\t', '\r'},
                  {' ', ' '},
                  {0xA0, 0xA0},
                  {0x1680, 0x1680},
                  {0x2000, 0x200A},
                  {0x2028, 0x2029},
                  {0x202F, 0x202F},
                  {0x205F, 0x205F},
                  {0x3000, 0x3000},
                  {0xFEFF, 0xFEFF}});
}

RegexNode SetNode(CodePointSet set) {
  RegexNode node;
  node.kind = RegexNode::Kind::kSet;
  node.set = std::move(set);
  return node;
}

bool IsPunctuation(uint32_t c) { return c > ' ' && c < 0x7F && !Contains(WordCharacters(), c); }

int HexValue(uint32_t c) {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int>(c - 'a' + 10);
  return c >= 'A' && c <= 'F' ? static_cast<int>(c - 'A' + 10) : -1;
}

bool IsOne(const CodePointSet& set) { return set.size() == 1 && set[0].low == set[0].high; }

}  // namespace

uint32_t RegexParser::Peek(size_t ahead) const {
  return position_ + ahead < code_points_.size() ? code_points_[position_ + ahead] : 0;
}

bool RegexParser::Take(uint32_t code_point) {
  if (AtEnd() || Peek() != code_point) return false;
  ++position_;
  return true;
}

absl::Status RegexParser::Refuse(std::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat("regex, character ", position_, ": ", std::string(what)));
}

absl::StatusOr<std::vector<RegexAlternative>> RegexParser::Parse() {
  if (!DecodeUtf8(source_, &code_points_)) return Refuse("not valid UTF-8");
  if (std::count(code_points_.begin(), code_points_.end(), 0U) > 0) {
    return Refuse("holds a NUL character");
  }
  std::vector<RegexAlternative> alternatives;
  do {
    RegexAlternative& alternative = alternatives.emplace_back();
    alternative.starts_anchored = Take('^');
    NSA_ASSIGN_OR_RETURN(alternative.node, ParseConcatenation());
    alternative.ends_anchored = Take('$');
    if (!AtEnd() && Peek() != '|') {
      return Refuse(Peek() == ')' ? "')' without '('" : "'$' before the end is not supported");
    }
  } while (Take('|'));
  return alternatives;
}

absl::StatusOr<RegexNode> RegexParser::ParseAlternation() {
  RegexNode node;
  node.kind = RegexNode::Kind::kAlternation;
  do {
    NSA_ASSIGN_OR_RETURN(RegexNode child, ParseConcatenation());
    node.children.push_back(std::move(child));
  } while (Take('|'));
  return node;
}

// Ends before '|', ')', '$' or the end.
absl::StatusOr<RegexNode> RegexParser::ParseConcatenation() {
  RegexNode node;
  while (!AtEnd() && Peek() != '|' && Peek() != ')' && Peek() != '$') {
    NSA_ASSIGN_OR_RETURN(RegexNode atom, ParseAtom());
    NSA_RETURN_IF_ERROR(ParseQuantifiers(&atom));
    node.children.push_back(std::move(atom));
  }
  return node;
}

absl::StatusOr<RegexNode> RegexParser::ParseAtom() {
  const uint32_t c = Peek();
  if (c == '(') return ParseGroup();
  if (c == '*' || c == '+' || c == '?') return Refuse("a quantifier without an operand");
  if (c == '{') return Refuse("'{' without an operand; a literal '{' is written '\\{'");
  if (c == '^') return Refuse("'^' after the start is not supported");
  ++position_;
  if (c == '.') return SetNode(Complement(LineEnds()));
  if (c == '[') {
    NSA_ASSIGN_OR_RETURN(CodePointSet set, ParseClass());
    return SetNode(std::move(set));
  }
  if (c == '\\') {
    NSA_ASSIGN_OR_RETURN(CodePointSet set, ParseEscape());
    return SetNode(std::move(set));
  }
  return SetNode({{c, c}});
}

absl::StatusOr<RegexNode> RegexParser::ParseGroup() {
  if (++nesting_ > max_nesting_) {
    return Refuse(absl::StrCat("groups nest deeper than the limit of ", max_nesting_));
  }
  ++position_;
  if (Take('?') && !Take(':')) {
    if (Peek() == '=' || Peek() == '!' || (Peek() == '<' && (Peek(1) == '=' || Peek(1) == '!'))) {
      return Refuse("lookaround is not supported");
    }
    return Refuse("named groups and flags, '(?', are not supported");
  }
  NSA_ASSIGN_OR_RETURN(RegexNode node, ParseAlternation());
  if (Peek() == '$') return Refuse("'$' inside a group is not supported");
  if (!Take(')')) return Refuse("'(' without ')'");
  --nesting_;
  return node;
}

absl::Status RegexParser::ParseQuantifiers(RegexNode* atom) {
  RegexNode node;
  node.kind = RegexNode::Kind::kRepeat;
  node.max_count = RegexNode::kUnbounded;
  if (Take('+')) {
    node.min_count = 1;
  } else if (Take('?')) {
    node.max_count = 1;
  } else if (Peek() == '{' && !AtEnd()) {
    NSA_ASSIGN_OR_RETURN(node, ParseCounts(std::move(node)));
  } else if (!Take('*')) {
    return absl::OkStatus();
  }
  if (Peek() == '+') return Refuse("possessive quantifiers are not supported");
  Take('?');  // lazy: the same texts match
  if (Peek() == '*' || Peek() == '+' || Peek() == '?' || Peek() == '{') {
    return Refuse("a quantifier of a quantifier");
  }
  node.children.push_back(std::move(*atom));
  *atom = std::move(node);
  return absl::OkStatus();
}

absl::StatusOr<RegexNode> RegexParser::ParseCounts(RegexNode atom) {
  Take('{');
  NSA_ASSIGN_OR_RETURN(atom.min_count, ParseCount());
  atom.max_count = atom.min_count;
  if (Take(',')) {
    atom.max_count = RegexNode::kUnbounded;
    if (Peek() != '}') {
      NSA_ASSIGN_OR_RETURN(atom.max_count, ParseCount());
    }
  }
  if (!Take('}')) return Refuse("'{' without '}'");
  if (atom.max_count != RegexNode::kUnbounded && atom.max_count < atom.min_count) {
    return Refuse(absl::StrCat("{", atom.min_count, ",", atom.max_count, "} is reversed"));
  }
  return atom;
}

absl::StatusOr<int32_t> RegexParser::ParseCount() {
  if (Peek() < '0' || Peek() > '9') return Refuse("a count must be a number");
  int32_t count = 0;
  for (; Peek() >= '0' && Peek() <= '9'; ++position_) {
    count = count * 10 + static_cast<int32_t>(Peek() - '0');
    if (count > kMaxCount) return Refuse(absl::StrCat("a count is over the limit of ", kMaxCount));
  }
  return count;
}

// After '['.
absl::StatusOr<CodePointSet> RegexParser::ParseClass() {
  const bool is_negated = Take('^');
  if (Peek() == ']') return Refuse("an empty class");
  std::vector<CodePointRange> ranges;
  while (!Take(']')) {
    if (AtEnd()) return Refuse("'[' without ']'");
    NSA_ASSIGN_OR_RETURN(CodePointSet member, ParseClassMember());
    if (Peek() == '-' && Peek(1) != ']' && Peek(1) != 0) {
      ++position_;
      NSA_ASSIGN_OR_RETURN(const CodePointSet last, ParseClassMember());
      if (!IsOne(member) || !IsOne(last) || last[0].low < member[0].low) {
        return Refuse("a range in a class is reversed or has no single ends");
      }
      member = {{member[0].low, last[0].high}};
    }
    ranges.insert(ranges.end(), member.begin(), member.end());
  }
  CodePointSet set = MakeSet(std::move(ranges));
  return is_negated ? Complement(set) : set;
}

absl::StatusOr<CodePointSet> RegexParser::ParseClassMember() {
  if (AtEnd()) return Refuse("'[' without ']'");
  if (Peek() == '[') return Refuse("'[' in a class must be written '\\['");
  const uint32_t c = Peek();
  ++position_;
  if (c == '\\') return ParseEscape();
  return CodePointSet{{c, c}};
}

// After the backslash.
absl::StatusOr<CodePointSet> RegexParser::ParseEscape() {
  const uint32_t c = Peek();
  if (!AtEnd()) ++position_;
  switch (c) {
    case 'd':
      return Digits();
    case 'D':
      return Complement(Digits());
    case 'w':
      return WordCharacters();
    case 'W':
      return Complement(WordCharacters());
    case 's':
      return Spaces();
    case 'S':
      return Complement(Spaces());
    case 'n':
      return CodePointSet{{'\n', '\n'}};
    case 'r':
      return CodePointSet{{'\r', '\r'}};
    case 't':
      return CodePointSet{{'\t', '\t'}};
    case 'f':
      return CodePointSet{{'\f', '\f'}};
    case 'v':
      return CodePointSet{{'\v', '\v'}};
    case 'x':
    case 'u': {
      NSA_ASSIGN_OR_RETURN(const uint32_t value, ParseHex(c == 'x' ? 2 : 4));
      return CodePointSet{{value, value}};
    }
    default:
      break;
  }
  if (IsPunctuation(c)) return CodePointSet{{c, c}};
  if (c >= '1' && c <= '9') return Refuse("back references are not supported");
  if (c == 'b' || c == 'B') return Refuse("word boundaries, '\\b', are not supported");
  if (c == 0) return Refuse("'\\' at the end");
  return Refuse(absl::StrCat("the escape '\\", EncodeUtf8(c), "' is not supported"));
}

absl::StatusOr<uint32_t> RegexParser::ParseHex(size_t num_digits) {
  const bool has_braces = Take('{');
  uint32_t value = 0;
  size_t count = 0;
  for (; HexValue(Peek()) >= 0 && (has_braces || count < num_digits); ++position_, ++count) {
    value = value * 16 + static_cast<uint32_t>(HexValue(Peek()));
    if (value > kMaxCodePoint) return Refuse("a code point is over 10FFFF");
  }
  const bool is_complete = has_braces ? count > 0 && Take('}') : count == num_digits;
  if (!is_complete) return Refuse("a hexadecimal escape is cut off");
  if (MakeSet({{value, value}}).empty()) return Refuse("surrogates are not supported");
  return value;
}

}  // namespace nsa::constraint
