#pragma once
// The conjunction of two schemas as one schema, where that can be said exactly.

#include <string>

#include "absl/status/statusor.h"
#include "engine/constraint/json_fragments.h"

namespace nsa::constraint {

// Accepts exactly what both accept. A $ref is kept only if the other side asserts nothing. Members
// that both restrict become an `allOf`. INVALID_ARGUMENT names the keyword that cannot be joined.
absl::StatusOr<Json> MergeSchemas(const Json& a, const Json& b, const std::string& pointer);

}  // namespace nsa::constraint
