#include "tests/fuzz/constraints.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void JsonSchema(std::string_view input) {
  const auto [schema, output] = SplitInput(input);
  FollowConstraint({.kind = ConstraintKind::kJsonSchema, .source = std::string(schema)}, output);
}

}  // namespace nsa::fuzz
