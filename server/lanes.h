#pragma once
// Lanes: requests wait for their own kind only before they are parsed, tokenized and let in. What
// one client makes tokenize keeps no small request of another waiting.

#include <cstddef>
#include <cstdint>

namespace nsa {

enum class Lane : uint8_t { kSmall, kLarge, kTokenize };
inline constexpr size_t kNumLanes = 3;
inline constexpr int kLaneTurns[kNumLanes] = {2, 2, 1};  // at the same time, of one transport

// Of a generation request: up to so many bytes it is small.
inline constexpr size_t kMaxSmallRequestBytes = 16 << 10;
inline Lane GenerationLane(size_t num_bytes) {
  return num_bytes > kMaxSmallRequestBytes ? Lane::kLarge : Lane::kSmall;
}

}  // namespace nsa
