#pragma once
// Division by a number that the host knows: a multiplication and a shift on the device.

#include <cstdint>

namespace nsa::cuda {

class FastDivide {
 public:
  FastDivide() = default;
  // For numerators in [0, 2^31); divisor in [1, 2^31). With s = ceil(log2 d) and
  // m = ceil(2^(31 + s) / d), m < 2^32 and n / d = n * m >> (31 + s) for all such n.
  explicit FastDivide(int32_t divisor) : divisor_(divisor) {
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    const uint64_t power = uint64_t{1} << (31 + shift_);
    factor_ = static_cast<uint32_t>((power + divisor - 1) / divisor);
  }

  __host__ __device__ int32_t divisor() const { return divisor_; }
  __device__ __forceinline__ int32_t Quotient(int32_t n) const {
    return static_cast<int32_t>((static_cast<uint64_t>(n) * factor_) >> (31 + shift_));
  }
  __device__ __forceinline__ int32_t Remainder(int32_t n) const {
    return n - Quotient(n) * divisor_;
  }

 private:
  int32_t divisor_ = 1;
  uint32_t factor_ = 1u << 31;
  int32_t shift_ = 0;
};

}  // namespace nsa::cuda
