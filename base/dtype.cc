#include "base/dtype.h"

#include <cmath>

namespace nsa {

Float16::Float16(float value) {
  constexpr float kSmallestNormal = 0x1p-14F, kOverflow = 65520.0F;
  const float magnitude = std::fabs(value);
  uint32_t half = 0;
  if (std::isnan(value)) {
    half = 0x7e00U;
  } else if (magnitude >= kOverflow) {
    half = 0x7c00U;
  } else if (magnitude < kSmallestNormal) {
    half = static_cast<uint32_t>(std::nearbyint(magnitude * 0x1p24F));
  } else {
    const uint32_t u = std::bit_cast<uint32_t>(magnitude);
    half = ((u + 0xfffU + ((u >> 13) & 1U)) >> 13) - (112U << 10);
  }
  bits = static_cast<uint16_t>(half | (std::signbit(value) ? 0x8000U : 0U));
}

Float16::operator float() const {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0x1fU) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

}  // namespace nsa
