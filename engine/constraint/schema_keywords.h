#pragma once
// JSON Schema's keywords (2020-12, with OpenAPI's `nullable`): which are known, which assert
// something, and what is said about those that are not supported.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/constraint/json_fragments.h"

namespace nsa::constraint {

// INVALID_ARGUMENT: "schema at /properties/a: ...".
absl::Status SchemaError(const std::string& pointer, const std::string& what);

// "/a" and "b/c" -> "/a/b~1c".
std::string JoinPointer(const std::string& pointer, std::string_view token);

// Refuses keywords that would change what is accepted and are not supported. Keywords that the
// standard does not name, and annotations (title, description, default, examples, ...), say
// nothing about an output.
absl::Status CheckKeywords(const Json& schema, const std::string& pointer);

// True if the schema, an object, has a keyword that asserts something, other than `except`.
bool HasAssertions(const Json& schema, const std::vector<std::string_view>& except = {});

// The names in `type`, "null" added by `nullable`; nothing if any type will do.
absl::StatusOr<std::optional<std::vector<std::string>>> TypesOf(const Json& schema,
                                                                const std::string& pointer);
// True if the type is among them; "number" covers "integer".
bool Covers(const std::vector<std::string>& types, const Json& value);

// A count such as minItems; nothing if absent.
absl::StatusOr<std::optional<int64_t>> CountOf(const Json& schema, const char* keyword,
                                               const std::string& pointer);

// The member of an object, or nullptr.
const Json* FindMember(const Json& object, std::string_view key);

}  // namespace nsa::constraint
