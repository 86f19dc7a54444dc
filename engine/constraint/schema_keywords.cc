#include "engine/constraint/schema_keywords.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"

namespace nsa::constraint {
namespace {

constexpr std::array kAssertions = {"$ref",
                                    "allOf",
                                    "anyOf",
                                    "oneOf",
                                    "enum",
                                    "const",
                                    "type",
                                    "properties",
                                    "required",
                                    "additionalProperties",
                                    "items",
                                    "prefixItems",
                                    "minItems",
                                    "maxItems",
                                    "minLength",
                                    "maxLength",
                                    "pattern",
                                    "format",
                                    "minimum",
                                    "maximum",
                                    "exclusiveMinimum",
                                    "exclusiveMaximum",
                                    "minProperties",
                                    "maxProperties"};

constexpr std::array kUnsupported = {"not",
                                     "if",
                                     "then",
                                     "else",
                                     "contains",
                                     "minContains",
                                     "maxContains",
                                     "multipleOf",
                                     "patternProperties",
                                     "propertyNames",
                                     "dependentRequired",
                                     "dependentSchemas",
                                     "dependencies",
                                     "unevaluatedItems",
                                     "unevaluatedProperties",
                                     "additionalItems",
                                     "$dynamicRef",
                                     "$recursiveRef",
                                     "uniqueItems"};

constexpr std::array kTypes = {"null", "boolean", "integer", "number", "string", "array", "object"};

template <size_t kSize>
bool IsIn(const std::array<const char*, kSize>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Values with which a keyword asserts nothing.
bool IsVacuous(const std::string& keyword, const Json& value) {
  if (keyword == "uniqueItems") return value == false;
  if (keyword == "unevaluatedItems" || keyword == "unevaluatedProperties" ||
      keyword == "propertyNames" || keyword == "additionalItems") {
    return value == true || (value.is_object() && value.empty());
  }
  if (keyword == "patternProperties" || keyword == "dependentRequired" ||
      keyword == "dependentSchemas" || keyword == "dependencies") {
    return value.is_object() && value.empty();
  }
  return false;
}

std::string_view TypeName(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "boolean";
  if (value.is_number()) return "number";
  if (value.is_string()) return "string";
  return value.is_array() ? "array" : "object";
}

bool IsIntegral(const Json& value) {
  if (value.is_number_integer()) return true;
  const double number = value.get<double>();
  return std::trunc(number) == number;
}

}  // namespace

absl::Status SchemaError(const std::string& pointer, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("schema at ", pointer.empty() ? "the root" : pointer, ": ", what));
}

std::string JoinPointer(const std::string& pointer, std::string_view token) {
  return absl::StrCat(pointer, "/",
                      absl::StrReplaceAll(std::string(token), {{"~", "~0"}, {"/", "~1"}}));
}

absl::Status CheckKeywords(const Json& schema, const std::string& pointer) {
  for (const auto& [keyword, value] : schema.items()) {
    if (IsIn(kUnsupported, keyword) && !IsVacuous(keyword, value)) {
      return SchemaError(JoinPointer(pointer, keyword), "this keyword is not supported");
    }
  }
  return absl::OkStatus();
}

bool HasAssertions(const Json& schema, const std::vector<std::string_view>& except) {
  for (const auto& [keyword, value] : schema.items()) {
    if (IsIn(kAssertions, keyword) &&
        std::find(except.begin(), except.end(), keyword) == except.end()) {
      return true;
    }
  }
  return false;
}

const Json* FindMember(const Json& object, std::string_view key) {
  const auto it = object.find(std::string(key));
  return it == object.end() ? nullptr : &*it;
}

absl::StatusOr<std::optional<std::vector<std::string>>> TypesOf(const Json& schema,
                                                                const std::string& pointer) {
  const Json* type = FindMember(schema, "type");
  if (type == nullptr) return std::optional<std::vector<std::string>>();
  std::vector<std::string> types;
  for (const Json& name : type->is_array() ? *type : Json::array({*type})) {
    if (!name.is_string() || !IsIn(kTypes, name.get<std::string>())) {
      return SchemaError(JoinPointer(pointer, "type"),
                         absl::StrCat(CompactText(name).substr(0, 100), " is no type"));
    }
    types.push_back(name.get<std::string>());
  }
  const Json* nullable = FindMember(schema, "nullable");
  if (nullable != nullptr && *nullable == true) types.emplace_back("null");
  std::sort(types.begin(), types.end());
  types.erase(std::unique(types.begin(), types.end()), types.end());
  return std::optional(std::move(types));
}

bool Covers(const std::vector<std::string>& types, const Json& value) {
  const std::string_view name = TypeName(value);
  return std::any_of(types.begin(), types.end(), [&](const std::string& type) {
    return type == name || (type == "integer" && value.is_number() && IsIntegral(value));
  });
}

absl::StatusOr<std::optional<int64_t>> CountOf(const Json& schema, const char* keyword,
                                               const std::string& pointer) {
  const Json* value = FindMember(schema, keyword);
  if (value == nullptr) return std::optional<int64_t>();
  // A count over the limit of grammar states needs no exact value.
  constexpr double kLargest = 1e9;
  if (!value->is_number() || !IsIntegral(*value) || value->get<double>() < 0) {
    return SchemaError(JoinPointer(pointer, keyword), "must be a count");
  }
  return std::optional(static_cast<int64_t>(std::min(value->get<double>(), kLargest)));
}

}  // namespace nsa::constraint
