#pragma once
// Fuzz targets: each takes any bytes whatever, and aborts where what is promised does not hold.
// libFuzzer runs them one by one (entry.cc, `make fuzz`); corpus_fuzz_test.cc replays their
// corpora.

#include <string_view>

namespace nsa::fuzz {

void ChatRequest(std::string_view input);        // the body of /v1/chat/completions
void ChatTemplate(std::string_view input);       // template, a line "====", lines "role: content"
void CompletionRequest(std::string_view input);  // the body of /v1/completions
void Detokenizer(std::string_view input);        // bytes as tokens
void GrpcRequest(std::string_view input);        // a serialized GenerateRequest
void HfTokenizer(std::string_view input);        // tokenizer.json, perhaps "====" and a text
void HttpFraming(std::string_view input);        // what comes in on a connection
void JsonSchema(std::string_view input);         // a schema, perhaps "====" and an output
void ModelConfig(std::string_view input);        // config.json
void RegexConstraint(std::string_view input);    // a regex, perhaps "====" and an output
void Safetensors(std::string_view input);        // a header in JSON, or a whole file
void SentencePiece(std::string_view input);      // tokenizer.model
void TextConfig(std::string_view input);         // tokenizer_config.json, generation_config.json

// The parts of an input before and behind its first line "===="; without one, all and nothing.
struct TwoParts {
  std::string_view first, second;
};
inline TwoParts SplitInput(std::string_view input) {
  constexpr std::string_view kSeparator = "\n====\n";
  const size_t at = input.find(kSeparator);
  if (at == std::string_view::npos) return {input, {}};
  return {input.substr(0, at), input.substr(at + kSeparator.size())};
}

}  // namespace nsa::fuzz
