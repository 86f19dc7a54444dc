#pragma once
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), the generator
// of UniformAt, for code of every device.

#include <cstdint>

namespace nsa {

// 64 random bits with `seed` as key and `position` as counter.
constexpr uint64_t PhiloxBits(uint64_t seed, uint64_t position) {
  constexpr int kRounds = 10;
  constexpr uint32_t kWeylLo = 0x9E3779B9U, kWeylHi = 0xBB67AE85U;
  uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32);
  uint32_t c2 = 0, c3 = 0;
  uint32_t key_lo = static_cast<uint32_t>(seed), key_hi = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t a = uint64_t{0xD2511F53U} * c0;
    const uint64_t b = uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ key_lo;
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ key_hi;
    c1 = static_cast<uint32_t>(b);
    c3 = static_cast<uint32_t>(a);
    key_lo += kWeylLo;
    key_hi += kWeylHi;
  }
  return (uint64_t{c1} << 32) | c0;
}

// Uniform in [0, 1): the upper 53 bits, a double's mantissa, so never 1.
constexpr double UniformFromBits(uint64_t bits) {
  return static_cast<double>(bits >> 11) * (1.0 / 9007199254740992.0);
}

}  // namespace nsa
