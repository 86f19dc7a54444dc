#pragma once
// What a tokenizer puts in front of a text that stands alone.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/json_text.h"

namespace nsa::hf {

// The token ids in front of a single text. `node`: the file's post_processor. UNIMPLEMENTED: tokens
// behind the text, or another kind of processor. Errors name the key.
absl::StatusOr<std::vector<int32_t>> ParseTextPrefix(const JsonNode& node);

}  // namespace nsa::hf
