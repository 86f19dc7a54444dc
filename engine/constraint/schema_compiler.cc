#include "engine/constraint/schema_compiler.h"

#include <algorithm>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "engine/constraint/schema_keywords.h"
#include "engine/constraint/schema_merge.h"
#include "engine/constraint/text_fragments.h"

namespace nsa::constraint {
namespace {

// Brackets of a JSON text that are open at once, at most.
int64_t NestingOf(std::string_view text) {
  int64_t depth = 0;
  int64_t deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string) {
      if (text[i] == '\\') ++i;
      if (i < text.size() && text[i] == '"') in_string = text[i - 1] == '\\';
    } else if (text[i] == '"') {
      in_string = true;
    } else if (text[i] == '{' || text[i] == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (text[i] == '}' || text[i] == ']') {
      --depth;
    }
  }
  return deepest;
}

Json Without(const Json& schema, const char* keyword) {
  Json rest = schema;
  rest.erase(keyword);
  return rest;
}

}  // namespace

absl::Status SchemaCompiler::Compile(std::string_view source) {
  if (const int64_t nesting = NestingOf(source); nesting > limits_.max_source_nesting) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the schema nests ", nesting, " deep, the limit is ", limits_.max_source_nesting));
  }
  root_ = Json::parse(source, nullptr, /*allow_exceptions=*/false);
  if (root_.is_discarded()) return absl::InvalidArgumentError("the schema is not valid JSON");
  RuleOf(&root_, "");
  while (!pending_.empty()) {
    const PendingRule next = std::move(pending_.back());
    pending_.pop_back();
    const Rule rule = grammar_->rule(next.rule);
    NSA_RETURN_IF_ERROR(Add(*next.schema, next.pointer, {rule.start, rule.accept}));
    if (grammar_->over_limit()) return absl::OkStatus();  // Grammar::Finish names the limit
  }
  return absl::OkStatus();
}

absl::Status SchemaCompiler::CheckTime() const {
  if (absl::Now() <= deadline_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the schema takes longer to compile than the limit of ",
                   absl::FormatDuration(limits_.max_compile_time)));
}

RuleId SchemaCompiler::RuleOf(const Json* schema, const std::string& pointer) {
  const auto [it, is_new] = rules_.try_emplace(schema, 0);
  if (is_new) {
    it->second = grammar_->AddRule();
    pending_.push_back({schema, pointer, it->second});
  }
  return it->second;
}

RuleId SchemaCompiler::RuleOfContent(const Json& schema, const std::string& pointer) {
  const auto [it, is_new] = contents_.try_emplace(CompactText(schema), nullptr);
  if (is_new) {
    copies_.push_back(std::make_unique<Json>(schema));
    it->second = copies_.back().get();
  }
  return RuleOf(it->second, pointer);
}

absl::Status SchemaCompiler::Add(const Json& schema, const std::string& pointer, Ends ends) {
  NSA_RETURN_IF_ERROR(CheckTime());
  if (grammar_->over_limit()) return absl::OkStatus();
  if (schema == false) return absl::OkStatus();
  if (schema == true) {
    json_.AddAnyValue(ends.from, ends.to);
    return absl::OkStatus();
  }
  if (!schema.is_object()) return SchemaError(pointer, "a schema is an object, true or false");
  NSA_RETURN_IF_ERROR(CheckKeywords(schema, pointer));
  if (schema.contains("$ref")) return AddReference(schema, pointer, ends);
  if (schema.contains("allOf")) return AddConjunction(schema, pointer, ends);
  if (schema.contains("anyOf") || schema.contains("oneOf")) {
    return AddDisjunction(schema, pointer, ends);
  }
  if (schema.contains("enum") || schema.contains("const")) {
    return AddEnumeration(schema, pointer, ends);
  }
  return AddTypes(schema, pointer, ends);
}

absl::StatusOr<const Json*> SchemaCompiler::Resolve(const Json& schema,
                                                    const std::string& pointer) const {
  const Json& reference = schema["$ref"];
  const std::string at = JoinPointer(pointer, "$ref");
  if (!reference.is_string()) return SchemaError(at, "must be a string");
  const std::string text = reference.get<std::string>();
  if (text != "#" && !text.starts_with("#/")) {
    return SchemaError(at, "only references into the schema itself, '#/...', are supported");
  }
  const Json* target = &root_;
  std::vector<std::string> tokens = absl::StrSplit(text, '/');
  for (size_t i = 1; i < tokens.size() && target != nullptr; ++i) {
    const std::string token = absl::StrReplaceAll(tokens[i], {{"~1", "/"}, {"~0", "~"}});
    uint32_t index = 0;
    if (target->is_object()) {
      target = FindMember(*target, token);
    } else if (target->is_array() && absl::SimpleAtoi(token, &index) && index < target->size()) {
      target = &(*target)[index];
    } else {
      target = nullptr;
    }
  }
  if (target == nullptr)
    return SchemaError(at, absl::StrCat("nothing is at ", text.substr(0, 200)));
  return target;
}

absl::Status SchemaCompiler::AddReference(const Json& schema, const std::string& pointer,
                                          Ends ends) {
  if (HasAssertions(schema, {"$ref"})) return AddConjunction(schema, pointer, ends);
  NSA_ASSIGN_OR_RETURN(const Json* target, Resolve(schema, pointer));
  const std::string target_pointer = schema["$ref"].get<std::string>().substr(1);
  grammar_->AddCall(ends.from, RuleOf(target, target_pointer), ends.to);
  return absl::OkStatus();
}

absl::StatusOr<Json> SchemaCompiler::Flatten(const Json& schema, const std::string& pointer,
                                             int64_t depth) {
  NSA_RETURN_IF_ERROR(CheckTime());
  if (depth > limits_.max_source_nesting) {
    return SchemaError(pointer, absl::StrCat("$ref and allOf lead to each other more than ",
                                             limits_.max_source_nesting, " times"));
  }
  if (!schema.is_object()) return schema;
  NSA_RETURN_IF_ERROR(CheckKeywords(schema, pointer));
  if (schema.contains("$ref")) {
    NSA_ASSIGN_OR_RETURN(const Json* target, Resolve(schema, pointer));
    NSA_ASSIGN_OR_RETURN(const Json flat, Flatten(*target, pointer, depth + 1));
    NSA_ASSIGN_OR_RETURN(const Json rest, Flatten(Without(schema, "$ref"), pointer, depth + 1));
    return MergeSchemas(flat, rest, pointer);
  }
  const Json* parts = FindMember(schema, "allOf");
  if (parts == nullptr) return schema;
  const std::string at = JoinPointer(pointer, "allOf");
  if (!parts->is_array() || parts->empty()) return SchemaError(at, "must be a list of schemas");
  Json merged = Without(schema, "allOf");
  for (size_t i = 0; i < parts->size(); ++i) {
    const std::string part_pointer = JoinPointer(at, absl::StrCat(i));
    NSA_ASSIGN_OR_RETURN(const Json part, Flatten((*parts)[i], part_pointer, depth + 1));
    NSA_ASSIGN_OR_RETURN(merged, MergeSchemas(merged, part, part_pointer));
  }
  return merged;
}

// As a rule of its own: a recursive schema comes back to the same content.
absl::Status SchemaCompiler::AddConjunction(const Json& schema, const std::string& pointer,
                                            Ends ends) {
  const Json* parts = FindMember(schema, "allOf");
  const bool is_single = parts != nullptr && parts->is_array() && parts->size() == 1;
  if (is_single && !HasAssertions(schema, {"allOf"})) {
    return Add((*parts)[0], JoinPointer(JoinPointer(pointer, "allOf"), "0"), ends);
  }
  NSA_ASSIGN_OR_RETURN(const Json flat, Flatten(schema, pointer, 0));
  grammar_->AddCall(ends.from, RuleOfContent(flat, pointer), ends.to);
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddDisjunction(const Json& schema, const std::string& pointer,
                                            Ends ends) {
  const char* keyword = schema.contains("anyOf") ? "anyOf" : "oneOf";
  const std::string at = JoinPointer(pointer, keyword);
  if (schema.contains("anyOf") && schema.contains("oneOf")) {
    return SchemaError(at, "anyOf beside oneOf is not supported");
  }
  const Json& branches = schema[keyword];
  if (!branches.is_array() || branches.empty()) return SchemaError(at, "must be a list of schemas");
  const Json base = Without(schema, keyword);
  const bool has_base = HasAssertions(base);
  for (size_t i = 0; i < branches.size(); ++i) {
    const std::string branch_pointer = JoinPointer(at, absl::StrCat(i));
    if (!has_base) {
      NSA_RETURN_IF_ERROR(Add(branches[i], branch_pointer, ends));
      continue;
    }
    NSA_ASSIGN_OR_RETURN(const Json branch, Flatten(branches[i], branch_pointer, 0));
    NSA_ASSIGN_OR_RETURN(const Json joined, MergeSchemas(base, branch, branch_pointer));
    NSA_RETURN_IF_ERROR(Add(joined, branch_pointer, ends));
  }
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddEnumeration(const Json& schema, const std::string& pointer,
                                            Ends ends) {
  if (HasAssertions(schema, {"enum", "const", "type"})) {
    return SchemaError(pointer, "enum and const go with type alone");
  }
  NSA_ASSIGN_OR_RETURN(const auto types, TypesOf(schema, pointer));
  const Json* constant = FindMember(schema, "const");
  const Json* values = FindMember(schema, "enum");
  if (values != nullptr && !values->is_array()) {
    return SchemaError(JoinPointer(pointer, "enum"), "must be a list");
  }
  std::vector<std::string> scalars;
  for (const Json& value : values == nullptr ? Json::array({*constant}) : *values) {
    if (constant != nullptr && value != *constant) continue;
    if (types && !Covers(*types, value)) continue;
    if (value.is_structured()) {
      json_.AddLiteral(value, ends.from, ends.to);
    } else {
      scalars.push_back(CompactText(value));
    }
  }
  AddAnyText(grammar_, scalars, ends.from, ends.to);
  return absl::OkStatus();
}

}  // namespace nsa::constraint
