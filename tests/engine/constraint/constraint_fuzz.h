#pragma once
// Entry points for a fuzzer: bytes in, abort if anything that must hold does not.

#include <cstdint>
#include <span>

namespace nsa {

// Compiles the bytes as a schema (first byte even) or as an expression (odd). If they compile, an
// output is drawn through the masks: the masks agree with Advance, the output can always go on, and
// an ended JSON output parses. True if they compiled.
bool FuzzConstraint(std::span<const uint8_t> data);

}  // namespace nsa
