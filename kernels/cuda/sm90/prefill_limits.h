#pragma once

#include <cstdint>

namespace nsa::cuda {

// Query heads of a KV head in the prefill kernels.
inline constexpr int kPrefillGroup = 16;
// Blocks that a token may choose in them.
inline constexpr int64_t kMaxPrefillSelected = 32;

}  // namespace nsa::cuda
