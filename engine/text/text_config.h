#pragma once
// The two small JSON files beside a model that concern text: tokenizer_config.json and
// generation_config.json. Both may be absent.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa {

struct TokenizerConfig {
  std::optional<bool> add_bos;                      // absent: as the tokenizer's own file has it
  std::string chat_template;                        // Jinja; empty: none
  std::optional<std::string> bos_token, eos_token;  // as the template spells them
  // For clients that read them: nothing here depends on them.
  std::optional<std::string> unk_token, pad_token, tokenizer_class;
};

struct GenerationConfig {
  std::optional<double> temperature, top_p, min_p;  // do_sample: false makes the temperature 0
  std::optional<int64_t> top_k;
  std::vector<int32_t> eos_tokens;
};

// INVALID_ARGUMENT (UNIMPLEMENTED: a setting that is not supported) names the key, what was found
// and what is allowed.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view json_text);
absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json_text);

// The same from the files of a model folder; the defaults where a file is absent. Errors name the
// file.
absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& model_folder);
absl::StatusOr<GenerationConfig> LoadGenerationConfig(const std::string& model_folder);

}  // namespace nsa
