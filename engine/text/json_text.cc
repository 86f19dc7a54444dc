#include "engine/text/json_text.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace nsa {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxShownBytes = 100;

// Depth of the deepest list or object; what is not JSON is left to the parser.
int DepthOf(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') ++i;
    if (c == '"') in_string = !in_string;
    if (in_string) continue;
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  return deepest;
}

}  // namespace

absl::StatusOr<Json> ParseJsonDocument(std::string_view text) {
  // Before the parser: printing and walking a value recur, so the depth bounds their stack.
  if (const int depth = DepthOf(text); depth > kMaxJsonDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON nests ", depth, " deep; allowed: ", kMaxJsonDepth));
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("not valid JSON");
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return json;
}

JsonNode JsonNode::Member(const std::string& key) const {
  const std::string path = path_.empty() ? key : absl::StrCat(path_, ".", key);
  if (value_ == nullptr || !value_->is_object()) return JsonNode(nullptr, path);
  const auto it = value_->find(key);
  return JsonNode(it == value_->end() ? nullptr : &*it, path);
}

absl::StatusOr<std::vector<JsonNode>> JsonNode::Elements() const {
  std::vector<JsonNode> elements;
  if (is_absent()) return elements;
  if (!value_->is_array()) return Invalid("a list");
  for (size_t i = 0; i < value_->size(); ++i) {
    elements.emplace_back(&(*value_)[i], absl::StrCat(path_, "[", i, "]"));
  }
  return elements;
}

absl::StatusOr<std::string> JsonNode::String() const {
  if (!is_string()) return Invalid("a string");
  return value_->get<std::string>();
}

absl::StatusOr<bool> JsonNode::Bool(bool value_if_absent) const {
  if (is_absent()) return value_if_absent;
  if (!value_->is_boolean()) return Invalid("true or false");
  return value_->get<bool>();
}

absl::StatusOr<int64_t> JsonNode::Integer(int64_t low, int64_t high) const {
  const std::string allowed = absl::StrCat("an integer from ", low, " to ", high);
  if (is_absent() || !value_->is_number_integer()) return Invalid(allowed);
  // Above the signed range only an unsigned number can be; it must not wrap into the range.
  const bool fits = !value_->is_number_unsigned() ||
                    value_->get<uint64_t>() <= static_cast<uint64_t>(std::max<int64_t>(high, 0));
  const auto number = value_->get<int64_t>();
  if (!fits || number < low || number > high) return Invalid(allowed);
  return number;
}

std::string JsonNode::Found() const {
  if (is_absent()) return "absent";
  if (value_->is_object()) return "an object";
  if (value_->is_array()) return "a list";
  return ClipUtf8(value_->dump(-1, ' ', false, Json::error_handler_t::replace), kMaxShownBytes);
}

absl::Status JsonNode::Invalid(std::string_view allowed) const {
  return absl::InvalidArgumentError(
      absl::StrCat(path_, " is ", Found(), "; allowed: ", std::string(allowed)));
}

absl::Status JsonNode::Unsupported(std::string_view supported) const {
  return absl::UnimplementedError(
      absl::StrCat(path_, " is ", Found(), "; supported: ", std::string(supported)));
}

}  // namespace nsa
