#include "server/model_folder.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status.h"
#include "engine/text/hf/hf_tokenizer.h"
#include "engine/text/sentencepiece_tokenizer.h"
#include "engine/text/text_config.h"

namespace nsa {
namespace {

constexpr int64_t kMaxTemplateBytes = int64_t{1} << 20;

// How the tokenizer spells a control token; empty if it has none.
std::string SpellingOf(const Tokenizer& tokenizer, int32_t token) {
  for (const ControlToken& control : tokenizer.control_tokens()) {
    if (control.token == token) return control.text;
  }
  return {};
}

std::optional<std::string> OptionalSpelling(const Tokenizer& tokenizer, int32_t token) {
  std::string text = SpellingOf(tokenizer, token);
  return text.empty() ? std::nullopt : std::optional(std::move(text));
}

// The template is added where it can be used.
TokenizerInfo MakeInfo(const TokenizerConfig& config, const TextAssets& assets) {
  const Tokenizer& tokenizer = *assets.tokenizer;
  const char* usual_class =
      assets.tokenizer_file == "tokenizer.model" ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
  TokenizerInfo info{.class_name = config.tokenizer_class.value_or(usual_class),
                     .bos_token = config.bos_token,
                     .eos_token = config.eos_token,
                     .unk_token = config.unk_token,
                     .pad_token = config.pad_token,
                     .special_tokens = tokenizer.control_tokens(),
                     .vocab_size = tokenizer.vocab_size()};
  if (!info.bos_token) info.bos_token = OptionalSpelling(tokenizer, tokenizer.bos_token());
  if (!info.eos_token) info.eos_token = OptionalSpelling(tokenizer, tokenizer.eos_token());
  return info;
}

absl::Status CompileTemplate(const TokenizerConfig& config, const std::string& template_file,
                             TextAssets* assets) {
  std::string source = config.chat_template;
  if (!template_file.empty()) {
    NSA_ASSIGN_OR_RETURN(source, ReadFile(template_file, kMaxTemplateBytes));
  }
  if (source.empty()) return absl::OkStatus();
  auto compiled = ChatTemplate::Compile(source, assets->info.bos_token.value_or(""),
                                        assets->info.eos_token.value_or(""));
  if (compiled.ok()) {
    assets->chat_template = *std::move(compiled);
    assets->info.chat_template = std::move(source);
  } else if (template_file.empty()) {
    assets->chat_template_problem = std::string(compiled.status().message());
  } else {
    return absl::Status(compiled.status().code(),
                        absl::StrCat(template_file, ": ", compiled.status().message()));
  }
  return absl::OkStatus();
}

// Many folders have both files; then tokenizer.json is the newer one, with tokens that were added.
// Where it is a SentencePiece tokenizer spelled in JSON, which is not supported, tokenizer.model is
// the original.
absl::Status LoadTokenizer(const std::string& folder, const TokenizerConfig& config,
                           TextAssets* assets) {
  assets->tokenizer_file = "tokenizer.json";
  auto tokenizer = LoadHfTokenizer(folder + "/tokenizer.json", config);
  absl::Status json = tokenizer.status();
  if (absl::IsNotFound(json) || absl::IsUnimplemented(json)) {
    assets->tokenizer_file = "tokenizer.model";
    tokenizer =
        LoadSentencePieceTokenizer(folder + "/tokenizer.model", config.add_bos.value_or(true));
    if (absl::IsNotFound(tokenizer.status()) && absl::IsUnimplemented(json)) return json;
    if (absl::IsUnimplemented(json)) assets->tokenizer_problem = std::string(json.message());
  }
  if (absl::IsNotFound(tokenizer.status())) {
    return absl::NotFoundError(
        absl::StrCat(folder, ": there is neither tokenizer.json nor tokenizer.model"));
  }
  NSA_RETURN_IF_ERROR(tokenizer.status());
  assets->tokenizer = *std::move(tokenizer);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TextAssets> LoadTextAssets(const std::string& folder,
                                          const std::string& template_file) {
  TextAssets assets;
  NSA_ASSIGN_OR_RETURN(const TokenizerConfig tokenizer_config, LoadTokenizerConfig(folder));
  NSA_RETURN_IF_ERROR(LoadTokenizer(folder, tokenizer_config, &assets));
  assets.info = MakeInfo(tokenizer_config, assets);
  NSA_RETURN_IF_ERROR(CompileTemplate(tokenizer_config, template_file, &assets));
  NSA_ASSIGN_OR_RETURN(const GenerationConfig generation, LoadGenerationConfig(folder));
  assets.defaults.temperature = generation.temperature.value_or(assets.defaults.temperature);
  assets.defaults.top_p = generation.top_p.value_or(assets.defaults.top_p);
  assets.defaults.min_p = generation.min_p.value_or(assets.defaults.min_p);
  assets.defaults.top_k = generation.top_k.value_or(assets.defaults.top_k);
  assets.eos_tokens = generation.eos_tokens;
  if (assets.eos_tokens.empty() && assets.tokenizer->eos_token() >= 0) {
    assets.eos_tokens = {assets.tokenizer->eos_token()};
  }
  return assets;
}

std::string ModelNameOf(const std::string& folder) {
  std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const std::string name = path.filename().string();
  return name.empty() || name == "." || name == ".." ? "model" : name;
}

}  // namespace nsa
