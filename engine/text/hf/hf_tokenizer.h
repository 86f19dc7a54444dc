#pragma once
// Hugging Face's tokenizer.json with a byte-level BPE, as Llama 3, Qwen 2, GPT-2, Mistral NeMo and
// DeepSeek have it.

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/text_config.h"
#include "engine/text/tokenizer.h"

namespace nsa {

// Encode gives the ids of the `tokenizers` library where it is told to take special tokens in a
// text as text: added tokens that are not special are found in the text, control tokens are not.
// With add_special_tokens, what the file's post_processor puts in front of a text stands there; a
// config that says add_bos decides instead whether the BOS alone does.
//
// `config`: tokenizer_config.json, whose bos_token and eos_token name tokens of the file.
// INVALID_ARGUMENT: damaged; UNIMPLEMENTED: asks for something that is not supported. Both name the
// key, what was found and what is allowed.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseHfTokenizer(std::string_view json_text,
                                                            const TokenizerConfig& config);

// The same from a file. NOT_FOUND: there is none. Errors name it.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadHfTokenizer(const std::string& path,
                                                           const TokenizerConfig& config);

}  // namespace nsa
