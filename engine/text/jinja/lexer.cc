#include "engine/text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"

namespace nsa::jinja {
namespace {

// Longer operators first.
constexpr std::array<std::string_view, 25> kOperators = {
    "==", "!=", "<=", ">=", "//", "+", "-", "~", "*", "/", "%", "<", ">",
    "=",  "(",  ")",  "[",  "]",  ",", ".", ":", "|", "{", "}", "!"};

constexpr std::string_view kWhitespace = " \t\n\r\f\v";

std::string_view StripLeading(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kWhitespace), text.size()));
  return text;
}

std::string_view StripTrailing(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kWhitespace) + 1);
}

class Lexer {
 public:
  explicit Lexer(std::string_view source)
      : source_(absl::StrReplaceAll(std::string(source), {{"\r\n", "\n"}})) {
    if (source_.ends_with('\n')) source_.pop_back();  // as Jinja: one final newline is dropped
  }

  absl::StatusOr<std::vector<Token>> Run();

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(position_); }
  void Advance(size_t num_bytes) {
    line_ += static_cast<int>(
        std::count(source_.begin() + position_, source_.begin() + position_ + num_bytes, '\n'));
    position_ += num_bytes;
  }
  void Emit(TokenKind kind, std::string text = {}, int64_t number = 0) {
    tokens_.push_back({kind, std::move(text), number, line_});
  }

  void LexText();
  absl::Status LexComment();
  absl::Status LexTag();
  absl::Status LexInside();
  absl::Status LexString();
  absl::Status LexNumber();
  absl::StatusOr<char> Unescape(char c) const;
  void AfterTag(bool is_block, char control);

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;     // the text that follows begins a line
  bool strip_next_text_ = false;  // the last tag ended with "-"
  std::vector<Token> tokens_;
};

absl::StatusOr<std::vector<Token>> Lexer::Run() {
  while (position_ < source_.size()) {
    LexText();
    if (position_ == source_.size()) break;
    if (Rest().starts_with("{#")) {
      NSA_RETURN_IF_ERROR(LexComment());
    } else {
      NSA_RETURN_IF_ERROR(LexTag());
    }
  }
  Emit(TokenKind::kEnd);
  return std::move(tokens_);
}

// Text up to the next tag, stripped as the tags on both sides ask.
void Lexer::LexText() {
  size_t end = position_;
  for (;; ++end) {
    end = source_.find('{', end);
    if (end == std::string::npos || end + 1 >= source_.size()) {
      end = source_.size();
      break;
    }
    const char next = source_[end + 1];
    if (next == '{' || next == '%' || next == '#') break;
  }
  std::string_view text = std::string_view(source_).substr(position_, end - position_);
  if (strip_next_text_) text = StripLeading(text);
  const std::string_view tag = std::string_view(source_).substr(end, 3);
  if (tag.size() == 3 && tag[2] == '-') {
    text = StripTrailing(text);
  } else if (tag.size() >= 2 && tag[1] != '{' && !(tag.size() == 3 && tag[2] == '+')) {
    const size_t newline = text.rfind('\n');
    const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    const bool begins_line = line_begin > 0 || (at_line_start_ && !strip_next_text_);
    const bool is_blank = text.find_first_not_of(" \t", line_begin) == std::string_view::npos;
    if (begins_line && is_blank) text = text.substr(0, line_begin);
  }
  if (!text.empty()) Emit(TokenKind::kText, std::string(text));
  Advance(end - position_);
  strip_next_text_ = false;
  at_line_start_ = false;
}

absl::Status Lexer::LexComment() {
  const size_t end = Rest().find("#}");
  if (end == std::string_view::npos) return ErrorAt(line_, "a comment is not closed");
  const char control = Rest()[end - 1];
  Advance(end + 2);
  AfterTag(/*is_block=*/true, control);
  return absl::OkStatus();
}

absl::Status Lexer::LexTag() {
  const bool is_block = Rest()[1] == '%';
  const std::string_view close = is_block ? "%}" : "}}";
  Emit(is_block ? TokenKind::kBlockBegin : TokenKind::kExprBegin);
  Advance(2);
  if (!Rest().empty() && (Rest()[0] == '-' || Rest()[0] == '+')) Advance(1);
  const int begin_line = line_;
  while (true) {
    const std::string_view rest = Rest();
    if (rest.empty()) return ErrorAt(begin_line, "a tag is not closed");
    const bool has_control =
        (rest[0] == '-' || rest[0] == '+') && rest.substr(1).starts_with(close);
    if (has_control || rest.starts_with(close)) {
      const char control = has_control ? rest[0] : ' ';
      Emit(is_block ? TokenKind::kBlockEnd : TokenKind::kExprEnd);
      Advance(has_control ? 3 : 2);
      AfterTag(is_block, control);
      return absl::OkStatus();
    }
    NSA_RETURN_IF_ERROR(LexInside());
  }
}

// Whitespace control behind a closing tag whose last character before it was `control`.
void Lexer::AfterTag(bool is_block, char control) {
  if (control == '-') {
    strip_next_text_ = true;
  } else if (is_block && control != '+' && Rest().starts_with("\n")) {
    Advance(1);
    at_line_start_ = true;
  }
}

absl::Status Lexer::LexInside() {
  const std::string_view rest = Rest();
  const auto first = static_cast<unsigned char>(rest[0]);
  if (absl::ascii_isspace(first)) {
    Advance(1);
    return absl::OkStatus();
  }
  if (first == '\'' || first == '"') return LexString();
  if (absl::ascii_isdigit(first)) return LexNumber();
  if (absl::ascii_isalpha(first) || first == '_') {
    size_t end = 1;
    while (end < rest.size() && (absl::ascii_isalnum(rest[end]) || rest[end] == '_')) ++end;
    Emit(TokenKind::kName, std::string(rest.substr(0, end)));
    Advance(end);
    return absl::OkStatus();
  }
  for (const std::string_view op : kOperators) {
    if (!rest.starts_with(op)) continue;
    Emit(TokenKind::kOperator, std::string(op));
    Advance(op.size());
    return absl::OkStatus();
  }
  return ErrorAt(line_,
                 absl::StrCat("unexpected character '", std::string(rest.substr(0, 1)), "'"));
}

absl::Status Lexer::LexString() {
  const char quote = Rest()[0];
  std::string text;
  size_t i = 1;
  for (;; ++i) {
    if (i >= Rest().size()) return ErrorAt(line_, "a string is not closed");
    char c = Rest()[i];
    if (c == quote) break;
    if (c == '\\') {
      if (++i >= Rest().size()) return ErrorAt(line_, "a string is not closed");
      NSA_ASSIGN_OR_RETURN(c, Unescape(Rest()[i]));
    }
    text += c;
  }
  Emit(TokenKind::kString, std::move(text));
  Advance(i + 1);
  return absl::OkStatus();
}

absl::StatusOr<char> Lexer::Unescape(char c) const {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return ErrorAt(line_, absl::StrCat("unsupported escape \\", std::string(1, c)));
  }
}

absl::Status Lexer::LexNumber() {
  size_t end = 0;
  while (end < Rest().size() && absl::ascii_isdigit(Rest()[end])) ++end;
  const std::string digits(Rest().substr(0, end));
  if (end + 1 < Rest().size() && Rest()[end] == '.' && absl::ascii_isdigit(Rest()[end + 1])) {
    return ErrorAt(line_, "numbers with a fraction are not supported");
  }
  int64_t number = 0;
  if (!absl::SimpleAtoi(digits, &number)) {
    return ErrorAt(line_, absl::StrCat("number ", digits, " is too large"));
  }
  Emit(TokenKind::kInt, digits, number);
  Advance(end);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

absl::Status ErrorAt(int line, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", message));
}

}  // namespace nsa::jinja
