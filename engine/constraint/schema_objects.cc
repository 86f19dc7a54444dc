// SchemaCompiler's part for objects: members in the order of `properties`, then required ones that
// `properties` does not name, then additional ones.

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/constraint/schema_compiler.h"
#include "engine/constraint/schema_keywords.h"
#include "engine/constraint/text_fragments.h"

namespace nsa::constraint {
namespace {

struct Property {
  std::string name;
  const Json* schema;
  std::string pointer;
  bool is_required = false;
};

absl::StatusOr<std::set<std::string>> RequiredNames(const Json& schema,
                                                    const std::string& pointer) {
  std::set<std::string> names;
  const Json* required = FindMember(schema, "required");
  if (required == nullptr) return names;
  const std::string at = JoinPointer(pointer, "required");
  if (!required->is_array()) return SchemaError(at, "must be a list of names");
  for (const Json& name : *required) {
    if (!name.is_string()) return SchemaError(at, "must be a list of names");
    names.insert(name.get<std::string>());
  }
  return names;
}

// `additional` must outlive the list.
absl::StatusOr<std::vector<Property>> ListProperties(const Json& schema, const Json& additional,
                                                     const std::string& pointer) {
  NSA_ASSIGN_OR_RETURN(std::set<std::string> required, RequiredNames(schema, pointer));
  std::vector<Property> list;
  const std::string at = JoinPointer(pointer, "properties");
  if (const Json* properties = FindMember(schema, "properties"); properties != nullptr) {
    if (!properties->is_object()) return SchemaError(at, "must be an object");
    for (const auto& [name, property] : properties->items()) {
      const bool is_required = required.erase(name) > 0;
      list.push_back({name, &property, JoinPointer(at, name), is_required});
    }
  }
  for (const std::string& name : required) {
    list.push_back({name, &additional, JoinPointer(pointer, "additionalProperties"), true});
  }
  return list;
}

// A count of members is supported where it follows from the names alone.
absl::Status CheckMemberCounts(const Json& schema, const std::vector<Property>& properties,
                               bool has_additional, const std::string& pointer) {
  NSA_ASSIGN_OR_RETURN(const auto least, CountOf(schema, "minProperties", pointer));
  NSA_ASSIGN_OR_RETURN(const auto most, CountOf(schema, "maxProperties", pointer));
  int64_t num_required = 0;
  for (const Property& property : properties) num_required += property.is_required ? 1 : 0;
  if (least && *least > num_required) {
    return SchemaError(JoinPointer(pointer, "minProperties"),
                       absl::StrCat(*least, " is over the ", num_required,
                                    " required members, "
                                    "which is not supported"));
  }
  if (most && (has_additional || *most < static_cast<int64_t>(properties.size()))) {
    return SchemaError(JoinPointer(pointer, "maxProperties"),
                       "is not supported where it excludes combinations of members");
  }
  return absl::OkStatus();
}

}  // namespace

// "key": value
absl::Status SchemaCompiler::AddMember(const std::string& key, const Json& schema,
                                       const std::string& pointer, Ends ends) {
  const StateId after_key = grammar_->AddState();
  const StateId value = grammar_->AddState();
  AddText(grammar_, CompactText(key), ends.from, after_key);
  json_.AddColon(after_key, value);
  return Add(schema, pointer, {value, ends.to});
}

absl::Status SchemaCompiler::AddObject(const Json& schema, const std::string& pointer, Ends ends) {
  const Json* member = FindMember(schema, "additionalProperties");
  const Json additional = member == nullptr ? Json(true) : *member;
  NSA_ASSIGN_OR_RETURN(const auto properties, ListProperties(schema, additional, pointer));
  NSA_RETURN_IF_ERROR(CheckMemberCounts(schema, properties, additional != false, pointer));
  if (properties.empty() && additional == true) {
    json_.AddAnyObject(ends.from, ends.to);
    return absl::OkStatus();
  }
  size_t num_until_closable = 0;  // members up to the last required one
  for (size_t i = 0; i < properties.size(); ++i) {
    if (properties[i].is_required) num_until_closable = i + 1;
  }
  const StateId open = grammar_->AddState();
  const StateId close = grammar_->AddState();  // a value has ended and '}' may follow
  grammar_->AddBytes(ends.from, '{', '{', open);
  const StateId first = json_.AddSpace(open);
  if (num_until_closable == 0) grammar_->AddBytes(first, '}', '}', ends.to);

  StateId key = grammar_->AddState();  // the key of member i or of one that may stand for it
  grammar_->AddEpsilon(first, key);
  for (size_t i = 0; i < properties.size() && !grammar_->over_limit(); ++i) {
    const StateId after = grammar_->AddState();
    const Property& property = properties[i];
    NSA_RETURN_IF_ERROR(AddMember(property.name, *property.schema, property.pointer, {key, after}));
    const StateId next = grammar_->AddState();
    if (!property.is_required) grammar_->AddEpsilon(key, next);
    if (i + 1 >= num_until_closable) grammar_->AddEpsilon(after, close);
    const StateId comma = grammar_->AddState();
    grammar_->AddBytes(after, ',', ',', comma);
    grammar_->AddEpsilon(json_.AddSpace(comma), next);
    key = next;
  }
  if (additional != false) {
    std::vector<std::string> names;
    for (const Property& property : properties) names.push_back(property.name);
    const StateId after_key = grammar_->AddState();
    const StateId value = grammar_->AddState();
    const StateId after = grammar_->AddState();
    AddOtherJsonString(grammar_, names, key, after_key);
    json_.AddColon(after_key, value);
    const std::string at = JoinPointer(pointer, "additionalProperties");
    NSA_RETURN_IF_ERROR(Add(additional, at, {value, after}));
    grammar_->AddEpsilon(after, close);
    const StateId comma = grammar_->AddState();
    grammar_->AddBytes(after, ',', ',', comma);
    grammar_->AddEpsilon(json_.AddSpace(comma), key);
  }
  grammar_->AddBytes(json_.AddSpace(close), '}', '}', ends.to);
  return absl::OkStatus();
}

}  // namespace nsa::constraint
