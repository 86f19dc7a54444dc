#pragma once

#include <cstdint>

namespace nsa::cuda {

// Blocks that a token may choose in the prefill kernels.
inline constexpr int64_t kMaxPrefillSelected = 32;

}  // namespace nsa::cuda
