// UniformAt: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011)
// with the seed as key and the position as counter.

#include <array>
#include <cstdint>

#include "kernels/sampling.h"

namespace nsa {
namespace {

using Counter = std::array<uint32_t, 4>;

Counter PhiloxRound(const Counter& c, uint32_t key_lo, uint32_t key_hi) {
  const uint64_t a = uint64_t{0xD2511F53U} * c[0];
  const uint64_t b = uint64_t{0xCD9E8D57U} * c[2];
  return {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key_lo, static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ c[3] ^ key_hi, static_cast<uint32_t>(a)};
}

Counter Philox(Counter counter, uint64_t seed) {
  constexpr int kRounds = 10;
  constexpr uint32_t kWeylLo = 0x9E3779B9U, kWeylHi = 0xBB67AE85U;
  auto key_lo = static_cast<uint32_t>(seed), key_hi = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    counter = PhiloxRound(counter, key_lo, key_hi);
    key_lo += kWeylLo;
    key_hi += kWeylHi;
  }
  return counter;
}

}  // namespace

double UniformAt(uint64_t seed, uint64_t position) {
  const Counter random =
      Philox({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0}, seed);
  const uint64_t bits = (uint64_t{random[1]} << 32) | random[0];
  constexpr double kUnit = 1.0 / 9007199254740992.0;  // 2^-53: the mantissa's bits, so never 1
  return static_cast<double>(bits >> 11) * kUnit;
}

}  // namespace nsa
