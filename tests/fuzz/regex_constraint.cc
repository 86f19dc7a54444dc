#include "tests/fuzz/constraints.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void RegexConstraint(std::string_view input) {
  const auto [regex, output] = SplitInput(input);
  FollowConstraint({.kind = ConstraintKind::kRegex, .source = std::string(regex)}, output);
}

}  // namespace nsa::fuzz
