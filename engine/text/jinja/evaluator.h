#pragma once
// Runs a compiled template over its variables.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/jinja/ast.h"

namespace nsa::jinja {

// What one rendering may cost.
struct RenderLimits {
  int64_t max_steps = 1'000'000;       // statements and expressions evaluated
  int64_t max_output_bytes = 4 << 20;  // of the rendered text
};

// The rendered text. INVALID_ARGUMENT: raise_exception (its message alone) or an operation on
// values it does not fit (with the line). RESOURCE_EXHAUSTED: a limit is exceeded.
absl::StatusOr<std::string> Render(const Block& program, Value::Dict variables,
                                   const RenderLimits& limits);

}  // namespace nsa::jinja
