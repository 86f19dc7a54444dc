#pragma once
// The split patterns of tokenizer.json are written for Oniguruma (Ruby's syntax); PCRE2 reads some
// of it differently.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace nsa::hf {

// `pattern` so that PCRE2 (UTF, UCP and MULTILINE) matches what Oniguruma matches. Only what means
// the same in both, or can be rewritten, is let through. UNIMPLEMENTED names what is not.
// Precondition: valid UTF-8.
absl::StatusOr<std::string> TranslatePattern(std::string_view pattern);

// A pattern that matches `text` itself.
std::string LiteralPattern(std::string_view text);

}  // namespace nsa::hf
