#pragma once
// The text side of a model folder: tokenizer, chat template and defaults, ready to serve.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/generation_service.h"

namespace nsa {

struct TextAssets {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string tokenizer_file;     // the one it is from: "tokenizer.json" or "tokenizer.model"
  std::string tokenizer_problem;  // why it is tokenizer.model though there is a tokenizer.json
  std::unique_ptr<ChatTemplate> chat_template;  // null: none, chat is refused
  std::string chat_template_problem;            // why the model's own template cannot be used
  TokenizerInfo info;
  SamplingDefaults defaults;
  std::vector<int32_t> eos_tokens;  // of generation_config.json, else the tokenizer's
};

// Reads tokenizer.json (tokenizer.model where there is none, or one that is not supported),
// tokenizer_config.json and generation_config.json of `folder`.
// `template_file` (empty: none) replaces the model's chat template; an error in it is an error,
// while one in the model's own is only reported. Errors name the file.
absl::StatusOr<TextAssets> LoadTextAssets(const std::string& folder,
                                          const std::string& template_file);

// "models/nsa-story/" -> "nsa-story".
std::string ModelNameOf(const std::string& folder);

}  // namespace nsa
