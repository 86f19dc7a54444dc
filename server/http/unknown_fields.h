#pragma once
// What happens to fields of a request that nothing reads.

#include <cstdint>

namespace nsa {

enum class UnknownFields : uint8_t { kIgnored, kRefused };

}  // namespace nsa
