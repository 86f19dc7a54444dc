#pragma once
// Template text -> tokens, whitespace control applied as Hugging Face renders chat templates
// (trim_blocks and lstrip_blocks on, comments dropped).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa::jinja {

enum class TokenKind : uint8_t {
  kText,        // literal template text
  kExprBegin,   // {{
  kExprEnd,     // }}
  kBlockBegin,  // {%
  kBlockEnd,    // %}
  kName,
  kString,
  kInt,
  kOperator,  // one of + - ~ * / // % == != < <= > >= = ( ) [ ] , . : |
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // kString: unescaped
  int64_t number = 0;
  int line = 0;
};

// The tokens, kEnd last. INVALID_ARGUMENT names the line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// "line 3: ..." as every template error reads.
absl::Status ErrorAt(int line, const std::string& message);

}  // namespace nsa::jinja
