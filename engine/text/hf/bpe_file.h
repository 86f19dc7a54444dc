#pragma once
// The "model" of tokenizer.json as a BpeSpec.

#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/hf/added_tokens.h"
#include "engine/text/hf/bpe_model.h"
#include "engine/text/json_text.h"
#include "engine/text/tokenizer.h"

namespace nsa::hf {

struct BpeFile {
  BpeSpec spec;                              // added tokens included
  std::vector<ControlToken> control_tokens;  // by id
};

// `model`: the file's model, of type BPE over the byte alphabet. INVALID_ARGUMENT: a merge of or
// into unknown tokens, an id out of range or given twice; UNIMPLEMENTED: another kind of model, or
// an option that changes the result. Errors name the key.
absl::StatusOr<BpeFile> ParseBpeFile(const JsonNode& model, const std::vector<AddedToken>& added);

}  // namespace nsa::hf
