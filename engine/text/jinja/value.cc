#include "engine/text/jinja/value.h"

#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"

namespace nsa::jinja {
namespace {

// Numbers and bools compare by value, as in Python.
std::optional<int64_t> AsNumber(const Value& value) {
  if (value.is_int()) return value.as_int();
  if (value.is_bool()) return value.as_bool() ? 1 : 0;
  return std::nullopt;
}

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        json += "\\\"";
        break;
      case '\\':
        json += "\\\\";
        break;
      case '\n':
        json += "\\n";
        break;
      case '\r':
        json += "\\r";
        break;
      case '\t':
        json += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppendFormat(&json, "\\u%04x", static_cast<int>(c));
        } else {
          json += c;
        }
    }
  }
  return json + "\"";
}

}  // namespace

bool Value::Truthy() const {
  if (is_bool()) return as_bool();
  if (is_int()) return as_int() != 0;
  if (is_string()) return !as_string().empty();
  if (is_list()) return !as_list().empty();
  if (is_dict()) return !as_dict().empty();
  return false;
}

std::string Value::TypeName() const {
  constexpr const char* kNames[] = {"undefined", "none",   "a bool", "a number",
                                    "a string",  "a list", "a dict"};
  return kNames[data_.index()];
}

absl::StatusOr<std::string> Value::ToText() const {
  if (is_undefined()) return std::string();
  if (is_none()) return std::string("None");
  if (is_bool()) return std::string(as_bool() ? "True" : "False");
  if (is_int()) return absl::StrCat(as_int());
  if (is_string()) return as_string();
  return absl::InvalidArgumentError(absl::StrCat(TypeName(), " cannot be printed"));
}

absl::StatusOr<std::string> Value::ToJson() const {
  if (is_undefined()) return absl::InvalidArgumentError("undefined cannot be written as JSON");
  if (is_none()) return std::string("null");
  if (is_bool()) return std::string(as_bool() ? "true" : "false");
  if (is_int()) return absl::StrCat(as_int());
  if (is_string()) return JsonString(as_string());
  std::string json = is_list() ? "[" : "{";
  const char* separator = "";
  if (is_list()) {
    for (const Value& item : as_list()) {
      NSA_ASSIGN_OR_RETURN(const std::string part, item.ToJson());
      absl::StrAppend(&json, separator, part);
      separator = ", ";
    }
    return json + "]";
  }
  for (const auto& [key, item] : as_dict()) {
    NSA_ASSIGN_OR_RETURN(const std::string part, item.ToJson());
    absl::StrAppend(&json, separator, JsonString(key), ": ", part);
    separator = ", ";
  }
  return json + "}";
}

bool operator==(const Value& a, const Value& b) {
  const std::optional<int64_t> number_a = AsNumber(a);
  const std::optional<int64_t> number_b = AsNumber(b);
  if (number_a.has_value() || number_b.has_value()) return number_a == number_b;
  if (a.data_.index() != b.data_.index()) return false;
  if (a.is_string()) return a.as_string() == b.as_string();
  if (a.is_list()) return a.as_list() == b.as_list();
  if (a.is_dict()) return a.as_dict() == b.as_dict();
  return true;  // both none or both undefined
}

}  // namespace nsa::jinja
