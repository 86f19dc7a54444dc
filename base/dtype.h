#pragma once
// Element types of tensors, their sizes and names, bf16/fp16 scalars, and dispatch from a runtime
// DType to a C++ type.

#include <bit>
#include <cstdint>
#include <string_view>

#include "base/check.h"

namespace nsa {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kU8 };

constexpr int64_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kU8:
      return 1;
  }
  return 0;
}

constexpr std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI32:
      return "i32";
    case DType::kU8:
      return "u8";
  }
  return "?";
}

// The upper 16 bits of an IEEE float; conversion rounds to nearest even and keeps NaN a NaN.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const bool is_nan = (u & 0x7fffffffU) > 0x7f800000U;
    bits = is_nan ? static_cast<uint16_t>((u >> 16) | 0x40U)
                  : static_cast<uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// IEEE half precision; conversion rounds to nearest even, to infinity beyond 65504.
struct Float16 {
  uint16_t bits;

  Float16() = default;
  explicit Float16(float value);
  explicit operator float() const;
};

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType kValue = DType::kF32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType kValue = DType::kBF16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType kValue = DType::kF16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType kValue = DType::kI32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType kValue = DType::kU8;
};

// Calls f.template operator()<T>() with the C++ type of a cache or weight dtype: float or BFloat16.
// Any other dtype is a programmer error: loaders convert or refuse before kernels see a tensor.
template <typename F>
decltype(auto) DispatchFloat(DType dtype, F&& f) {
  NSA_CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << DTypeName(dtype);
  if (dtype == DType::kF32) return f.template operator()<float>();
  return f.template operator()<BFloat16>();
}

}  // namespace nsa
