#include "server/http/constraint_fields.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace nsa {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "response_format";
constexpr size_t kMaxSchemaName = 64;

void Add(const std::string& field, ConstraintSpec spec, GenerateCall* call) {
  call->constraints.push_back(std::make_shared<const GivenConstraint>(
      GivenConstraint{.field = field, .spec = std::move(spec)}));
}

void AddSchema(const std::string& field, std::string schema, GenerateCall* call) {
  Add(field, {.kind = ConstraintKind::kJsonSchema, .source = std::move(schema)}, call);
}

// The text of what stands at `path` in the body, members in the order in which they were written:
// an answer follows it, and `json` does not keep it. The body has been parsed, `path` is in it.
std::string OrderedText(std::string_view body, const std::string& path) {
  using OrderedJson = nlohmann::ordered_json;
  const OrderedJson document = OrderedJson::parse(body);
  return document.at(OrderedJson::json_pointer(path)).dump();
}

bool IsSchemaName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxSchemaName &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
         });
}

// {"name", "schema", "strict", "description"}; an answer follows the schema, whatever `strict`
// says.
void ReadJsonSchema(std::string_view body, JsonFields* fields, GenerateCall* call) {
  const json* object = fields->Object("json_schema");
  if (object == nullptr) return fields->RefuseMissing("json_schema");
  JsonFields inner = fields->Inner("json_schema", *object);
  const std::optional<std::string> name = inner.String("name");
  if (!name.has_value()) inner.RefuseMissing("name");
  if (name.has_value() && !IsSchemaName(*name)) {
    inner.Refuse("name", absl::StrCat("must be 1 to ", kMaxSchemaName,
                                      " letters, digits, '_' and '-' (", name->size(), " bytes)"));
  }
  inner.String("description");
  inner.Bool("strict");
  if (inner.Find("schema") == nullptr) inner.RefuseMissing("schema");
  inner.Object("schema");
  fields->Merge(inner.Finish());
  if (!fields->status().ok()) return;
  AddSchema(inner.FullName("schema"), OrderedText(body, "/response_format/json_schema/schema"),
            call);
}

void ReadResponseFormat(std::string_view body, JsonFields* fields, GenerateCall* call) {
  const json* format = fields->Object(kFormat);
  if (format == nullptr) return;
  JsonFields inner = fields->Inner(kFormat, *format);
  const std::optional<std::string> type = inner.String("type");
  if (inner.Find("type") == nullptr) inner.RefuseMissing("type");
  if (type == "json_schema") {
    ReadJsonSchema(body, &inner, call);
  } else if (inner.Find("json_schema") != nullptr) {
    inner.Refuse("json_schema", "is allowed only with type \"json_schema\"");
  } else if (type == "json_object") {
    Add(kFormat, {.kind = ConstraintKind::kJsonObject}, call);
  } else if (type.has_value() && type != "text") {
    inner.Refuse("type", "is not supported; allowed: \"text\", \"json_object\", \"json_schema\"");
  }
  fields->Merge(inner.Finish());
}

// A schema, or its text.
void ReadGuidedJson(std::string_view body, JsonFields* fields, GenerateCall* call) {
  constexpr char kKey[] = "guided_json";
  const json* value = fields->Find(kKey);
  if (value == nullptr) return;
  if (value->is_string()) return AddSchema(kKey, value->get_ref<const std::string&>(), call);
  if (!value->is_object()) return fields->RefuseType(kKey, "a JSON schema or its text", *value);
  AddSchema(kKey, OrderedText(body, "/guided_json"), call);
}

void ReadGuidedChoice(JsonFields* fields, GenerateCall* call) {
  constexpr char kKey[] = "guided_choice";
  const json* value = fields->Find(kKey);
  if (value == nullptr) return;
  if (!value->is_array()) return fields->RefuseType(kKey, "a list of strings", *value);
  std::optional<std::vector<std::string>> choices = fields->StringOrList(kKey);
  if (!choices.has_value()) return;
  Add(kKey, {.kind = ConstraintKind::kChoice, .choices = *std::move(choices)}, call);
}

}  // namespace

void ReadConstraintFields(std::string_view body, JsonFields* fields, GenerateCall* call) {
  ReadResponseFormat(body, fields, call);
  ReadGuidedJson(body, fields, call);
  if (auto regex = fields->String("guided_regex"); regex.has_value()) {
    Add("guided_regex", {.kind = ConstraintKind::kRegex, .source = *std::move(regex)}, call);
  }
  ReadGuidedChoice(fields, call);
}

}  // namespace nsa
