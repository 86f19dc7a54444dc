#include "server/http/raw_json.h"

#include <string>

#include "nlohmann/json.hpp"

namespace nsa {
namespace {

// Walks over valid JSON.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  char Peek() {
    while (place_ < text_.size() && IsSpace(text_[place_])) ++place_;
    return place_ < text_.size() ? text_[place_] : '\0';
  }
  void Skip() { ++place_; }

  // The next value with everything in it.
  std::string_view TakeValue() {
    Peek();
    const size_t begin = place_;
    int depth = 0;
    do {
      const char next = Peek();
      if (next == '"') {
        SkipString();
      } else if (next == '{' || next == '[') {
        ++depth;
        Skip();
      } else if (next == '}' || next == ']') {
        --depth;
        Skip();
      } else if (next == ',' || next == ':') {
        Skip();
      } else {
        SkipWord();
      }
    } while (depth > 0 && place_ < text_.size());
    return text_.substr(begin, place_ - begin);
  }

 private:
  static bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

  void SkipString() {
    for (++place_; place_ < text_.size() && text_[place_] != '"'; ++place_) {
      if (text_[place_] == '\\') ++place_;
    }
    ++place_;
  }
  // A number, true, false or null.
  void SkipWord() {
    constexpr std::string_view kEnds = ",:]}";
    ++place_;
    while (place_ < text_.size() && !IsSpace(text_[place_]) &&
           kEnds.find(text_[place_]) == std::string_view::npos) {
      ++place_;
    }
  }

  const std::string_view text_;
  size_t place_ = 0;
};

bool IsKey(std::string_view quoted, std::string_view key) {
  if (quoted.find('\\') == std::string_view::npos) {
    return quoted.substr(1, quoted.size() - 2) == key;
  }
  return nlohmann::json::parse(quoted).get<std::string>() == key;
}

}  // namespace

std::optional<std::string_view> RawMember(std::string_view object, std::string_view key) {
  Scanner scanner(object);
  if (scanner.Peek() != '{') return std::nullopt;
  scanner.Skip();
  while (scanner.Peek() == '"') {
    const std::string_view name = scanner.TakeValue();
    if (scanner.Peek() == ':') scanner.Skip();
    const std::string_view value = scanner.TakeValue();
    if (IsKey(name, key)) return value;
    if (scanner.Peek() == ',') scanner.Skip();
  }
  return std::nullopt;
}

}  // namespace nsa
