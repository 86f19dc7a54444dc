#pragma once
// Template source -> tree. Whatever this subset of Jinja lacks is refused here, by name and line.

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja/ast.h"

namespace nsa::jinja {

// Statements: set, for (loop.index, index0, first, last, length), if / elif / else. Expressions:
// literals, lists, variables, attributes, indices, slices, + - ~ * // %, comparisons, in, and, or,
// not, conditionals. Functions raise_exception and namespace, and the methods, filters and tests of
// builtins.h.
absl::StatusOr<Block> Parse(std::string_view source);

}  // namespace nsa::jinja
