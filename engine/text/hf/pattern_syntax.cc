#include "engine/text/hf/pattern_syntax.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa::hf {
namespace {

// Unicode's White_Space; PCRE2's \s has U+180E too.
constexpr std::string_view kSpaces =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNoSpaces =
    R"(\x00-\x08\x0e-\x1f\x21-\x84\x86-\x9f\xa1-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

constexpr std::string_view kSameEscapes = "nrtfea";  // the same control character in both
constexpr std::array<std::string_view, 8> kGroups = {"(?:",  "(?=",  "(?!",  "(?>",
                                                     "(?<=", "(?<!", "(?i:", "(?-i:"};

bool IsGeneralCategory(std::string_view name) {
  constexpr std::array<std::string_view, 37> kNames = {
      "C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",
      "Mc", "Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi",
      "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : rest_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (!rest_.empty()) NSA_RETURN_IF_ERROR(Item());
    return std::move(out_);
  }

 private:
  absl::Status Refused(std::string_view what) const {
    return absl::UnimplementedError(
        absl::StrCat("the pattern's '", std::string(what), "' is not supported"));
  }
  void Copy(size_t num_bytes) {
    out_ += rest_.substr(0, num_bytes);
    rest_.remove_prefix(num_bytes);
  }
  void Append(std::initializer_list<std::string_view> parts) {
    for (const std::string_view part : parts) out_ += part;
  }
  absl::Status Item();
  absl::Status Class();
  absl::Status ClassItem(bool is_first);
  absl::Status Group();
  absl::Status Interval();
  absl::Status Escape(bool in_class);
  absl::Status Property();
  absl::Status CodePoint();

  std::string_view rest_;
  std::string out_;
};

absl::Status Translator::Item() {
  switch (rest_[0]) {
    case '\\':
      return Escape(/*in_class=*/false);
    case '[':
      return Class();
    case '(':
      return Group();
    case '{':
      return Interval();
    default:
      Copy(1);
      return absl::OkStatus();
  }
}

absl::Status Translator::Group() {
  for (const std::string_view group : kGroups) {
    if (!rest_.starts_with(group)) continue;
    Copy(group.size());
    return absl::OkStatus();
  }
  // "(*" begins one of PCRE2's verbs, "(?" an extension.
  if (rest_.starts_with("(?") || rest_.starts_with("(*")) return Refused(rest_.substr(0, 4));
  Copy(1);
  return absl::OkStatus();
}

// "{2}", "{1,}", "{1,3}", "{,3}"; any other brace stands for itself.
absl::Status Translator::Interval() {
  const std::string_view body = rest_.substr(1, rest_.find('}') - 1);
  const size_t comma = body.find(',');
  const std::string_view low = body.substr(0, comma);
  const std::string_view high =
      comma == std::string_view::npos ? std::string_view() : body.substr(comma + 1);
  const auto is_number = [](std::string_view text) {
    return std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  };
  const bool is_interval = rest_.find('}') != std::string_view::npos && is_number(low) &&
                           is_number(high) && !(low.empty() && high.empty());
  if (!is_interval) {
    Append({"\\{"});
    rest_.remove_prefix(1);
    return absl::OkStatus();
  }
  const std::string_view behind = rest_.substr(body.size() + 2, 1);
  // "{1,3}+" is greedy in one and possessive in the other, "{2}?" optional or lazy.
  if (behind == "+" || (behind == "?" && comma == std::string_view::npos)) {
    return Refused(rest_.substr(0, body.size() + 3));
  }
  Append({"{", low.empty() ? "0" : low, body.substr(low.size()), "}"});
  rest_.remove_prefix(body.size() + 2);
  return absl::OkStatus();
}

absl::Status Translator::Class() {
  Copy(rest_.starts_with("[^") ? 2 : 1);
  if (rest_.starts_with("]")) return Refused("[]");
  for (bool is_first = true; !rest_.starts_with("]"); is_first = false) {
    if (rest_.empty()) return absl::InvalidArgumentError("the pattern's '[' has no ']'");
    NSA_RETURN_IF_ERROR(ClassItem(is_first));
  }
  Copy(1);
  return absl::OkStatus();
}

absl::Status Translator::ClassItem(bool is_first) {
  if (rest_[0] == '[') return Refused(rest_.substr(0, 2));  // a set inside a set
  if (rest_.starts_with("&&")) return Refused("&&");
  const bool is_set = rest_[0] == '\\' && rest_.size() > 1 &&
                      std::string_view("sSdDpP").find(rest_[1]) != std::string_view::npos;
  if (is_set) {
    NSA_RETURN_IF_ERROR(Escape(/*in_class=*/true));
    // A set is no end of a range.
    if (rest_.starts_with("-") && !rest_.starts_with("-]")) return Refused(rest_.substr(0, 2));
    return absl::OkStatus();
  }
  const bool is_range = rest_.starts_with("-\\") && !is_first && rest_.size() > 2 &&
                        std::string_view("sSdDpP").find(rest_[2]) != std::string_view::npos;
  if (is_range) return Refused(rest_.substr(0, 3));
  if (rest_[0] == '\\') return Escape(/*in_class=*/true);
  Copy(1);
  return absl::OkStatus();
}

absl::Status Translator::Escape(bool in_class) {
  if (rest_.size() < 2) return absl::InvalidArgumentError("the pattern ends with a backslash");
  const char c = rest_[1];
  if (c == 'p' || c == 'P') return Property();
  if (c == 'x' || c == 'u') return CodePoint();
  if (c == 's' || c == 'S') {
    const std::string_view spaces = c == 's' || !in_class ? kSpaces : kNoSpaces;
    Append({in_class ? "" : (c == 's' ? "[" : "[^"), spaces, in_class ? "" : "]"});
  } else if (c == 'd' || c == 'D') {
    Append({c == 'd' ? "\\p{Nd}" : "\\P{Nd}"});
  } else if (c == 'v') {
    Append({"\\x0b"});  // in PCRE2 every vertical space
  } else if (kSameEscapes.find(c) != std::string_view::npos || absl::ascii_ispunct(c) || c == ' ' ||
             (!in_class && (c == 'A' || c == 'z'))) {
    Append({rest_.substr(0, 2)});
  } else {
    return Refused(rest_.substr(0, 2));
  }
  rest_.remove_prefix(2);
  return absl::OkStatus();
}

// \p{L}, \p{^Lu}, \p{Han}.
absl::Status Translator::Property() {
  const size_t end = rest_.find('}');
  if (!rest_.substr(2).starts_with("{") || end == std::string_view::npos) {
    return Refused(rest_.substr(0, 3));
  }
  std::string_view name = rest_.substr(3, end - 3);
  const bool is_negated = name.starts_with("^") != (rest_[1] == 'P');
  if (name.starts_with("^")) name.remove_prefix(1);
  if (name.empty() || !std::all_of(name.begin(), name.end(),
                                   [](char c) { return absl::ascii_isalpha(c) || c == '_'; })) {
    return Refused(rest_.substr(0, end + 1));
  }
  // A bare script name means the script's extensions to PCRE2.
  Append({is_negated ? "\\P{" : "\\p{", IsGeneralCategory(name) ? "" : "sc:", name, "}"});
  rest_.remove_prefix(end + 1);
  return absl::OkStatus();
}

// \x41, \x{1F600}, \u00e9.
absl::Status Translator::CodePoint() {
  const bool has_braces = rest_.starts_with("\\x{");
  const size_t begin = has_braces ? 3 : 2;
  const size_t wanted = has_braces ? 8 : (rest_[1] == 'u' ? 4 : 2);
  size_t end = begin;
  while (end < rest_.size() && end - begin < wanted && absl::ascii_isxdigit(rest_[end])) ++end;
  const std::string_view digits = rest_.substr(begin, end - begin);
  const bool is_whole =
      has_braces ? !digits.empty() && rest_.substr(end).starts_with("}") : digits.size() == wanted;
  // Oniguruma takes \xE9 as a byte, not as a code point.
  const bool is_byte = !has_braces && rest_[1] == 'x' && is_whole && digits[0] >= '8';
  if (!is_whole || is_byte) return Refused(rest_.substr(0, end));
  Append({"\\x{", digits, "}"});
  rest_.remove_prefix(end + (has_braces ? 1 : 0));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> TranslatePattern(std::string_view pattern) {
  return Translator(pattern).Run();
}

std::string LiteralPattern(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (absl::ascii_ispunct(c)) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace nsa::hf
