#include "engine/text/text_config.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status.h"
#include "engine/text/json_text.h"

namespace nsa {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxFileBytes = int64_t{16} << 20;

absl::Status BadKey(const std::string& key, const Json& found, const std::string& allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("key ", key, " is ", found.dump(-1, ' ', true, Json::error_handler_t::replace),
                   "; allowed: ", allowed));
}

// The value of a key that is neither absent nor null.
const Json* Find(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

// A token is written as a string or as an object with its "content".
absl::Status ReadToken(const Json& object, const char* key, std::optional<std::string>* token) {
  const Json* value = Find(object, key);
  if (value == nullptr) return absl::OkStatus();
  const Json* content = value->is_object() ? Find(*value, "content") : value;
  if (content == nullptr || !content->is_string()) {
    return BadKey(key, *value, "a string, or an object with a string content");
  }
  *token = content->get<std::string>();
  return absl::OkStatus();
}

// For what is only passed on: anything but a token counts as absent.
std::optional<std::string> TokenIfAny(const Json& object, const char* key) {
  std::optional<std::string> token;
  return ReadToken(object, key, &token).ok() ? token : std::nullopt;
}

// A template is written as a string or as a list of named ones, of which "default" is taken.
absl::Status ReadTemplate(const Json& object, std::string* chat_template) {
  const Json* value = Find(object, "chat_template");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_string()) {
    *chat_template = value->get<std::string>();
    return absl::OkStatus();
  }
  if (!value->is_array()) return BadKey("chat_template", *value, "a string or a list");
  for (const Json& entry : *value) {
    const Json* name = entry.is_object() ? Find(entry, "name") : nullptr;
    const Json* source = entry.is_object() ? Find(entry, "template") : nullptr;
    if (name == nullptr || source == nullptr || !source->is_string()) {
      return BadKey("chat_template", entry, "objects with name and template");
    }
    if (*name == "default") *chat_template = source->get<std::string>();
  }
  return absl::OkStatus();
}

absl::Status ReadBool(const Json& object, const char* key, bool* flag) {
  const Json* value = Find(object, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return BadKey(key, *value, "true or false");
  *flag = value->get<bool>();
  return absl::OkStatus();
}

// A number in [low, high].
absl::Status ReadNumber(const Json& object, const char* key, double low, double high,
                        std::optional<double>* number) {
  const Json* value = Find(object, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number() || value->get<double>() < low || value->get<double>() > high) {
    return BadKey(key, *value, absl::StrCat("a number from ", low, " to ", high));
  }
  *number = value->get<double>();
  return absl::OkStatus();
}

bool IsTokenId(const Json& value) {
  return value.is_number_integer() && value.get<int64_t>() >= 0 &&
         value.get<int64_t>() <= std::numeric_limits<int32_t>::max();
}

absl::Status ReadEosTokens(const Json& object, std::vector<int32_t>* tokens) {
  const Json* value = Find(object, "eos_token_id");
  if (value == nullptr) return absl::OkStatus();
  for (const Json& token : value->is_array() ? *value : Json::array({*value})) {
    if (!IsTokenId(token)) return BadKey("eos_token_id", *value, "a token id or a list of them");
    tokens->push_back(token.get<int32_t>());
  }
  return absl::OkStatus();
}

// Empty text means that the file does not exist.
absl::StatusOr<std::string> ReadIfPresent(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return std::string();
  if (text.ok() && text->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the file is empty"));
  }
  return text;
}

template <typename Config>
absl::StatusOr<Config> Load(const std::string& path,
                            absl::StatusOr<Config> (*parse)(std::string_view)) {
  NSA_ASSIGN_OR_RETURN(const std::string text, ReadIfPresent(path));
  if (text.empty()) return Config{};
  absl::StatusOr<Config> config = parse(text);
  if (config.ok()) return config;
  return absl::Status(config.status().code(), absl::StrCat(path, ": ", config.status().message()));
}

}  // namespace

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view json_text) {
  NSA_ASSIGN_OR_RETURN(const Json json, ParseJsonDocument(json_text));
  TokenizerConfig config;
  bool add_eos = false;
  if (Find(json, "add_bos_token") != nullptr) {
    NSA_RETURN_IF_ERROR(ReadBool(json, "add_bos_token", &config.add_bos.emplace()));
  }
  NSA_RETURN_IF_ERROR(ReadBool(json, "add_eos_token", &add_eos));
  // A prompt that ends with the end of a text has nothing to continue.
  if (add_eos) return absl::UnimplementedError("key add_eos_token is true; supported: false only");
  NSA_RETURN_IF_ERROR(ReadTemplate(json, &config.chat_template));
  NSA_RETURN_IF_ERROR(ReadToken(json, "bos_token", &config.bos_token));
  NSA_RETURN_IF_ERROR(ReadToken(json, "eos_token", &config.eos_token));
  config.unk_token = TokenIfAny(json, "unk_token");
  config.pad_token = TokenIfAny(json, "pad_token");
  config.tokenizer_class = TokenIfAny(json, "tokenizer_class");
  return config;
}

absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json_text) {
  NSA_ASSIGN_OR_RETURN(const Json json, ParseJsonDocument(json_text));
  GenerationConfig config;
  std::optional<double> top_k;
  bool do_sample = true;
  NSA_RETURN_IF_ERROR(ReadNumber(json, "temperature", 0, 2, &config.temperature));
  NSA_RETURN_IF_ERROR(ReadNumber(json, "top_p", 1e-6, 1, &config.top_p));
  NSA_RETURN_IF_ERROR(ReadNumber(json, "min_p", 0, 1, &config.min_p));
  NSA_RETURN_IF_ERROR(ReadNumber(json, "top_k", -1, 1e9, &top_k));
  if (top_k.has_value()) config.top_k = static_cast<int64_t>(*top_k);
  NSA_RETURN_IF_ERROR(ReadBool(json, "do_sample", &do_sample));
  if (!do_sample) config.temperature = 0;
  NSA_RETURN_IF_ERROR(ReadEosTokens(json, &config.eos_tokens));
  return config;
}

absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& model_folder) {
  return Load<TokenizerConfig>(model_folder + "/tokenizer_config.json", ParseTokenizerConfig);
}

absl::StatusOr<GenerationConfig> LoadGenerationConfig(const std::string& model_folder) {
  return Load<GenerationConfig>(model_folder + "/generation_config.json", ParseGenerationConfig);
}

}  // namespace nsa
