#include "engine/text/hf/post_processor.h"

#include "base/status.h"
#include "engine/text/hf/added_tokens.h"

namespace nsa::hf {
namespace {

absl::Status AppendTokens(const JsonNode& special, const JsonNode& special_tokens,
                          std::vector<int32_t>* prefix) {
  const JsonNode name_node = special.Member("id");
  NSA_ASSIGN_OR_RETURN(const std::string name, name_node.String());
  NSA_ASSIGN_OR_RETURN(const auto ids, special_tokens.Member(name).Member("ids").Elements());
  if (ids.empty()) return name_node.Invalid("a key of special_tokens that has ids");
  for (const JsonNode& node : ids) {
    NSA_ASSIGN_OR_RETURN(const int64_t id, node.Integer(0, kMaxTokenId));
    prefix->push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ParseTemplate(const JsonNode& node) {
  std::vector<int32_t> prefix;
  bool is_behind_text = false;
  NSA_ASSIGN_OR_RETURN(const auto parts, node.Member("single").Elements());
  for (const JsonNode& part : parts) {
    const JsonNode special = part.Member("SpecialToken");
    const JsonNode sequence = part.Member("Sequence");
    if (!sequence.is_absent()) {
      if (is_behind_text) return part.Unsupported("one Sequence");
      is_behind_text = true;
    } else if (special.is_absent()) {
      return part.Invalid("an object with SpecialToken or Sequence");
    } else if (is_behind_text) {
      // A prompt that ends with the end of a text has nothing to continue.
      return special.Unsupported("special tokens in front of the text only");
    } else {
      NSA_RETURN_IF_ERROR(AppendTokens(special, node.Member("special_tokens"), &prefix));
    }
  }
  if (!is_behind_text) return node.Member("single").Invalid("a list with a Sequence");
  return prefix;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseTextPrefix(const JsonNode& node) {
  std::vector<int32_t> prefix;
  if (node.is_absent()) return prefix;
  const JsonNode type_node = node.Member("type");
  NSA_ASSIGN_OR_RETURN(const std::string type, type_node.String());
  if (type == "ByteLevel") return prefix;  // it concerns offsets only
  if (type == "TemplateProcessing") return ParseTemplate(node);
  if (type != "Sequence") return type_node.Unsupported("TemplateProcessing, ByteLevel, Sequence");
  NSA_ASSIGN_OR_RETURN(const auto processors, node.Member("processors").Elements());
  for (const JsonNode& processor : processors) {
    NSA_ASSIGN_OR_RETURN(std::vector<int32_t> outer, ParseTextPrefix(processor));
    outer.insert(outer.end(), prefix.begin(), prefix.end());
    prefix = std::move(outer);
  }
  return prefix;
}

}  // namespace nsa::hf
