#pragma once
// The tokenizer of every model so far: a SentencePiece model file.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace nsa {

// Loads tokenizer.model; `add_bos` comes from tokenizer_config.json. NOT_FOUND: no such file;
// INVALID_ARGUMENT: not a SentencePiece model.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(const std::string& path,
                                                                      bool add_bos);

}  // namespace nsa
