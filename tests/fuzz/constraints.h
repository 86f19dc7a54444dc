#pragma once
// What a constraint from a client goes through.

#include <string_view>

#include "engine/constraint/constraint_spec.h"

namespace nsa::fuzz {

// Compiles it, then follows its masks by the bytes of `output`. Aborts where a mask and the
// automaton disagree.
void FollowConstraint(const ConstraintSpec& spec, std::string_view output);

}  // namespace nsa::fuzz
