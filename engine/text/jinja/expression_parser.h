#pragma once
// Expressions of the template language, by recursive descent in Jinja's order of precedence.

#include "absl/status/statusor.h"
#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/token_cursor.h"

namespace nsa::jinja {

// Parses one expression and leaves the cursor behind it.
absl::StatusOr<ExpressionPtr> ParseExpression(TokenCursor* cursor);

}  // namespace nsa::jinja
