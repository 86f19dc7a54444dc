#pragma once
// Constraints over a vocabulary of the 256 bytes and two end-of-sequence tokens.

#include <memory>
#include <string>
#include <vector>

#include "engine/constraint/constraint_compiler.h"

namespace nsa {

inline constexpr int32_t kByteEos = 256, kOtherByteEos = 257;

inline std::shared_ptr<const CompiledConstraint> CompileByteConstraint(
    const ConstraintSpec& spec, const ConstraintLimits& limits = {},
    const std::vector<int32_t>& eos_tokens = {kByteEos, kOtherByteEos}) {
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
  bytes.resize(kOtherByteEos + 1);
  const auto tokens = TokenTable::Create(bytes, eos_tokens).value();
  return ConstraintCompiler(tokens, limits, 1 << 20).Compile(spec).value();
}

inline std::shared_ptr<const CompiledConstraint> ByteRegex(const std::string& source) {
  return CompileByteConstraint({.kind = ConstraintKind::kRegex, .source = source});
}

}  // namespace nsa
