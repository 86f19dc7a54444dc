#include "engine/constraint/schema_merge.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/constraint/schema_keywords.h"

namespace nsa::constraint {
namespace {

bool IsTrivial(const Json& schema) {
  return schema == true || (schema.is_object() && !HasAssertions(schema));
}

// allOf of two member schemas, left open until the member itself is compiled.
Json Both(const Json& a, const Json& b) {
  if (a == b || IsTrivial(b)) return a;
  if (IsTrivial(a)) return b;
  if (a == false || b == false) return false;
  Json both = Json::object();
  both["allOf"] = Json::array({a, b});
  return both;
}

// What a schema demands of one property.
Json PropertyOf(const Json& schema, const std::string& name) {
  const Json* properties = FindMember(schema, "properties");
  const Json* property = properties == nullptr ? nullptr : FindMember(*properties, name);
  if (property != nullptr) return *property;
  const Json* additional = FindMember(schema, "additionalProperties");
  return additional == nullptr ? Json(true) : *additional;
}

absl::Status MergeObjects(const Json& a, const Json& b, const std::string& pointer, Json* merged) {
  Json properties = Json::object();
  for (const Json* side : {&a, &b}) {
    const Json* members = FindMember(*side, "properties");
    if (members == nullptr) continue;
    if (!members->is_object()) {
      return SchemaError(JoinPointer(pointer, "properties"), "must be an object");
    }
    for (const auto& [name, schema] : members->items()) {
      if (!properties.contains(name))
        properties[name] = Both(PropertyOf(a, name), PropertyOf(b, name));
    }
  }
  if (!properties.empty()) (*merged)["properties"] = std::move(properties);
  const Json* a_rest = FindMember(a, "additionalProperties");
  const Json* b_rest = FindMember(b, "additionalProperties");
  if (a_rest != nullptr || b_rest != nullptr) {
    (*merged)["additionalProperties"] =
        Both(a_rest == nullptr ? Json(true) : *a_rest, b_rest == nullptr ? Json(true) : *b_rest);
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> MergeTypes(const Json& a, const Json& b, const std::string& pointer) {
  NSA_ASSIGN_OR_RETURN(const auto a_types, TypesOf(a, pointer));
  NSA_ASSIGN_OR_RETURN(const auto b_types, TypesOf(b, pointer));
  const auto has = [](const std::vector<std::string>& types, const std::string& type) {
    return std::find(types.begin(), types.end(), type) != types.end() ||
           (type == "integer" && std::find(types.begin(), types.end(), "number") != types.end());
  };
  Json both = Json::array();
  for (const auto& [types, others] : {std::pair(&*a_types, &*b_types), {&*b_types, &*a_types}}) {
    for (const std::string& type : *types) {
      const bool is_known = std::find(both.begin(), both.end(), type) != both.end();
      if (has(*others, type) && !is_known) both.push_back(type);
    }
  }
  return both;
}

Json Intersection(const Json& a, const Json& b) {
  Json both = Json::array();
  for (const Json& value : a) {
    if (std::find(b.begin(), b.end(), value) != b.end()) both.push_back(value);
  }
  return both;
}

// A keyword that both sides have, with different values.
absl::StatusOr<Json> MergeKeyword(const std::string& keyword, const Json& a, const Json& b,
                                  const std::string& pointer) {
  const bool is_lower = keyword.starts_with("min") || keyword == "exclusiveMinimum";
  const bool is_upper = keyword.starts_with("max") || keyword == "exclusiveMaximum";
  if ((is_lower || is_upper) && a.is_number() && b.is_number()) {
    const bool a_is_less = a.get<double>() < b.get<double>();
    return a_is_less == is_lower ? b : a;
  }
  if (keyword == "required" && a.is_array() && b.is_array()) {
    Json both = a;
    for (const Json& name : b) {
      if (std::find(both.begin(), both.end(), name) == both.end()) both.push_back(name);
    }
    return both;
  }
  if (keyword == "enum" && a.is_array() && b.is_array()) return Intersection(a, b);
  if (keyword == "items") return Both(a, b);
  return SchemaError(JoinPointer(pointer, keyword),
                     "two different values of this keyword cannot be joined");
}

bool IsOfObjects(const std::string& keyword) {
  return keyword == "properties" || keyword == "additionalProperties";
}

}  // namespace

absl::StatusOr<Json> MergeSchemas(const Json& a, const Json& b, const std::string& pointer) {
  if (a == false || b == false) return Json(false);
  if (IsTrivial(b)) return a;
  if (IsTrivial(a)) return b;
  if (!a.is_object() || !b.is_object()) {
    return SchemaError(pointer, "a schema is an object, true or false");
  }
  if (a.contains("$ref") || b.contains("$ref")) {
    return SchemaError(JoinPointer(pointer, "$ref"), "cannot be joined with other keywords here");
  }
  if (a.contains("prefixItems") != b.contains("prefixItems") &&
      (a.contains("items") || b.contains("items"))) {
    return SchemaError(JoinPointer(pointer, "prefixItems"), "cannot be joined with other items");
  }
  Json merged = Json::object();
  NSA_RETURN_IF_ERROR(MergeObjects(a, b, pointer, &merged));
  if (a.contains("type") && b.contains("type")) {
    NSA_ASSIGN_OR_RETURN(merged["type"], MergeTypes(a, b, pointer));
  } else if (a.contains("type") || b.contains("type")) {
    const Json& side = a.contains("type") ? a : b;
    merged["type"] = side["type"];
    if (side.contains("nullable")) merged["nullable"] = side["nullable"];
  }
  for (const Json* side : {&a, &b}) {
    for (const auto& [keyword, value] : side->items()) {
      const bool is_done = IsOfObjects(keyword) || keyword == "type" || keyword == "nullable";
      if (is_done) continue;
      const Json* other = FindMember(merged, keyword);
      if (other == nullptr) {
        merged[keyword] = value;
      } else if (*other != value && HasAssertions(Json::object({{keyword, value}}))) {
        NSA_ASSIGN_OR_RETURN(merged[keyword], MergeKeyword(keyword, *other, value, pointer));
      }
    }
  }
  return merged;
}

}  // namespace nsa::constraint
