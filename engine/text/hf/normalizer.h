#pragma once
// Normalizer: what a tokenizer does to a text before it cuts it. Hides utf8proc.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/json_text.h"

namespace nsa::hf {

// Unicode's canonical composition. Time: O(bytes * log(bytes)) whatever the text.
// Precondition: valid UTF-8.
std::string ComposedUtf8(std::string_view text);

class Normalizer {
 public:
  // `node`: the file's normalizer. Supported: null, NFC, Sequence of these.
  static absl::StatusOr<Normalizer> Parse(const JsonNode& node);
  std::string Normalized(std::string_view text) const {
    return composes_ ? ComposedUtf8(text) : std::string(text);
  }

 private:
  bool composes_ = false;
};

}  // namespace nsa::hf
