#include "engine/text/jinja/builtins.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"

namespace nsa::jinja {
namespace {

constexpr std::string_view kWhitespace = " \t\n\r\f\v";

absl::Status WrongType(const Value& value, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("needs ", wanted, ", got ", value.TypeName()));
}

absl::Status CheckStrings(const Value& self, const Arguments& arguments) {
  if (!self.is_string()) return WrongType(self, "a string");
  for (const Value& argument : arguments) {
    if (!argument.is_string()) return WrongType(argument, "a string");
  }
  return absl::OkStatus();
}

enum class Side : uint8_t { kLeft, kRight, kBoth };

// Removes whitespace, or the ASCII characters of the argument, from the ends.
template <Side kSide>
absl::StatusOr<Value> Strip(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  const std::string_view characters = arguments.empty() ? kWhitespace : arguments[0].as_string();
  std::string_view text = self.as_string();
  if (kSide != Side::kRight) {
    text.remove_prefix(std::min(text.find_first_not_of(characters), text.size()));
  }
  if (kSide != Side::kLeft) text = text.substr(0, text.find_last_not_of(characters) + 1);
  return Value(std::string(text));
}

absl::StatusOr<Value> Upper(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  return Value(absl::AsciiStrToUpper(self.as_string()));
}

absl::StatusOr<Value> Lower(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  return Value(absl::AsciiStrToLower(self.as_string()));
}

absl::StatusOr<Value> Capitalize(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  std::string text = absl::AsciiStrToLower(self.as_string());
  if (!text.empty()) text[0] = absl::ascii_toupper(static_cast<unsigned char>(text[0]));
  return Value(std::move(text));
}

absl::StatusOr<Value> StartsWith(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  return Value(self.as_string().starts_with(arguments[0].as_string()));
}

absl::StatusOr<Value> EndsWith(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  return Value(self.as_string().ends_with(arguments[0].as_string()));
}

absl::StatusOr<Value> Replace(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  const std::string& from = arguments[0].as_string();
  const std::string& to = arguments[1].as_string();
  if (from.empty()) return absl::InvalidArgumentError("needs a non-empty string to replace");
  const auto text_bytes = static_cast<int64_t>(self.as_string().size());
  const int64_t num_matches_at_most = text_bytes / static_cast<int64_t>(from.size());
  if (text_bytes + num_matches_at_most * static_cast<int64_t>(to.size()) > kMaxStringBytes) {
    return absl::ResourceExhaustedError("builds a string over the limit");
  }
  return Value(absl::StrReplaceAll(self.as_string(), {{from, to}}));
}

absl::StatusOr<Value> Split(const Value& self, const Arguments& arguments) {
  NSA_RETURN_IF_ERROR(CheckStrings(self, arguments));
  const std::string& separator = arguments[0].as_string();
  if (separator.empty()) return absl::InvalidArgumentError("needs a non-empty separator");
  Value::List parts;
  std::string_view rest = self.as_string();
  for (size_t at = rest.find(separator); at != std::string_view::npos; at = rest.find(separator)) {
    parts.push_back(Value(std::string(rest.substr(0, at))));
    rest.remove_prefix(at + separator.size());
  }
  parts.push_back(Value(std::string(rest)));
  return Value(std::move(parts));
}

// Characters of a string, items of a list, keys of a dict.
absl::StatusOr<Value> Length(const Value& self, const Arguments& /*arguments*/) {
  if (self.is_list()) return Value(static_cast<int64_t>(self.as_list().size()));
  if (self.is_dict()) return Value(static_cast<int64_t>(self.as_dict().size()));
  if (!self.is_string()) return WrongType(self, "a string, list or dict");
  int64_t num_characters = 0;
  for (const char c : self.as_string()) num_characters += (c & 0xC0) != 0x80;
  return Value(num_characters);
}

absl::StatusOr<Value> ToJson(const Value& self, const Arguments& /*arguments*/) {
  NSA_ASSIGN_OR_RETURN(std::string json, self.ToJson());
  return Value(std::move(json));
}

absl::StatusOr<Value> ToString(const Value& self, const Arguments& /*arguments*/) {
  NSA_ASSIGN_OR_RETURN(std::string text, self.ToText());
  return Value(std::move(text));
}

absl::StatusOr<Value> Default(const Value& self, const Arguments& arguments) {
  const bool also_falsy = arguments.size() == 2 && arguments[1].Truthy();
  return self.is_undefined() || (also_falsy && !self.Truthy()) ? arguments[0] : self;
}

absl::StatusOr<Value> First(const Value& self, const Arguments& /*arguments*/) {
  if (!self.is_list()) return WrongType(self, "a list");
  return self.as_list().empty() ? Value() : self.as_list().front();
}

absl::StatusOr<Value> Last(const Value& self, const Arguments& /*arguments*/) {
  if (!self.is_list()) return WrongType(self, "a list");
  return self.as_list().empty() ? Value() : self.as_list().back();
}

absl::StatusOr<Value> Join(const Value& self, const Arguments& arguments) {
  if (!self.is_list()) return WrongType(self, "a list");
  if (!arguments.empty() && !arguments[0].is_string()) return WrongType(arguments[0], "a string");
  std::string joined;
  for (size_t i = 0; i < self.as_list().size(); ++i) {
    NSA_ASSIGN_OR_RETURN(const std::string text, self.as_list()[i].ToText());
    if (i > 0 && !arguments.empty()) joined += arguments[0].as_string();
    joined += text;
    if (static_cast<int64_t>(joined.size()) > kMaxStringBytes) {
      return absl::ResourceExhaustedError("builds a string over the limit");
    }
  }
  return Value(std::move(joined));
}

constexpr Builtin kMethods[] = {
    {"strip", 0, 1, Strip<Side::kBoth>},
    {"lstrip", 0, 1, Strip<Side::kLeft>},
    {"rstrip", 0, 1, Strip<Side::kRight>},
    {"upper", 0, 0, Upper},
    {"lower", 0, 0, Lower},
    {"capitalize", 0, 0, Capitalize},
    {"startswith", 1, 1, StartsWith},
    {"endswith", 1, 1, EndsWith},
    {"replace", 2, 2, Replace},
    {"split", 1, 1, Split},
};

constexpr Builtin kFilters[] = {
    {"trim", 0, 1, Strip<Side::kBoth>},
    {"upper", 0, 0, Upper},
    {"lower", 0, 0, Lower},
    {"capitalize", 0, 0, Capitalize},
    {"replace", 2, 2, Replace},
    {"length", 0, 0, Length},
    {"count", 0, 0, Length},
    {"tojson", 0, 0, ToJson},
    {"string", 0, 0, ToString},
    {"default", 1, 2, Default},
    {"first", 0, 0, First},
    {"last", 0, 0, Last},
    {"join", 0, 1, Join},
};

constexpr Test kTests[] = {
    {"defined", [](const Value& v) { return !v.is_undefined(); }},
    {"undefined", [](const Value& v) { return v.is_undefined(); }},
    {"none", [](const Value& v) { return v.is_none(); }},
    {"string", [](const Value& v) { return v.is_string(); }},
    {"number", [](const Value& v) { return v.is_int() || v.is_bool(); }},
    {"boolean", [](const Value& v) { return v.is_bool(); }},
    {"true", [](const Value& v) { return v.is_bool() && v.as_bool(); }},
    {"false", [](const Value& v) { return v.is_bool() && !v.as_bool(); }},
    {"mapping", [](const Value& v) { return v.is_dict(); }},
    {"iterable", [](const Value& v) { return v.is_list() || v.is_dict() || v.is_string(); }},
    {"sequence", [](const Value& v) { return v.is_list() || v.is_dict() || v.is_string(); }},
    {"even", [](const Value& v) { return v.is_int() && v.as_int() % 2 == 0; }},
    {"odd", [](const Value& v) { return v.is_int() && v.as_int() % 2 != 0; }},
};

template <typename Row, size_t kNumRows>
const Row* Find(const Row (&table)[kNumRows], std::string_view name) {
  const Row* row = std::find_if(std::begin(table), std::end(table),
                                [&](const Row& candidate) { return candidate.name == name; });
  return row == std::end(table) ? nullptr : row;
}

}  // namespace

const Builtin* FindMethod(std::string_view name) { return Find(kMethods, name); }
const Builtin* FindFilter(std::string_view name) { return Find(kFilters, name); }
const Test* FindTest(std::string_view name) { return Find(kTests, name); }

}  // namespace nsa::jinja
