#pragma once
// RoPE's angles.

#include <cstdint>

namespace nsa::cuda {

struct SinCos {
  float sin, cos;
};

// Of position * inv_freq. The turns are counted in double, so that the angle that is left is exact
// to fp32 for any position.
__device__ __forceinline__ SinCos RotationAt(int32_t position, float inv_freq) {
  constexpr double kTurnsPerRadian = 0.15915494309189534;
  const double turns =
      static_cast<double>(position) * static_cast<double>(inv_freq) * kTurnsPerRadian;
  SinCos result;
  sincospif(2.0F * static_cast<float>(turns - rint(turns)), &result.sin, &result.cos);
  return result;
}

// Elements c and c + d/2 of a rotated head. Written out, so that every kernel rounds alike.
__device__ __forceinline__ float RotateLow(float low, float high, const SinCos& angle) {
  return __fmaf_rn(low, angle.cos, -__fmul_rn(high, angle.sin));
}
__device__ __forceinline__ float RotateHigh(float low, float high, const SinCos& angle) {
  return __fmaf_rn(high, angle.cos, __fmul_rn(low, angle.sin));
}
// `value` rotated with the element that is half a head away; is_low: value is in the first half.
__device__ __forceinline__ float RotatedElement(bool is_low, float value, float other,
                                                const SinCos& angle) {
  return is_low ? RotateLow(value, other, angle) : RotateHigh(other, value, angle);
}

}  // namespace nsa::cuda
