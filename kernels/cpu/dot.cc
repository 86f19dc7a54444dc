#include "kernels/cpu/dot.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dot.cc"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

// Products are summed modulo kChains, the chains pairwise at the end: the same order for every
// vector width. The last products are padded with zeros.
constexpr int64_t kChains = 64;
constexpr int64_t kMaxLanes = 16;

class DotSums {
 public:
  DotSums() { std::fill_n(sums_, kNumVectors, hn::Zero(d_)); }

  HWY_INLINE void Add(const float* HWY_RESTRICT x, const float* HWY_RESTRICT y) {
    for (int64_t i = 0; i < kNumVectors; ++i) {
      sums_[i] = hn::MulAdd(hn::LoadU(d_, x + i * kLanes), hn::LoadU(d_, y + i * kLanes), sums_[i]);
    }
  }

  HWY_INLINE float Total() const {
    alignas(64) float chains[kChains];
    for (int64_t i = 0; i < kNumVectors; ++i) hn::Store(sums_[i], d_, chains + i * kLanes);
    for (int64_t half = kChains / 2; half >= 1; half /= 2) {
      for (int64_t i = 0; i < half; ++i) chains[i] += chains[i + half];
    }
    return chains[0];
  }

 private:
  using D = hn::CappedTag<float, kMaxLanes>;
  static constexpr int64_t kLanes = hn::MaxLanes(D());
  static constexpr int64_t kNumVectors = kChains / kLanes;
  const D d_;
  hn::Vec<D> sums_[kNumVectors];
};

float DotProduct(const float* x, const float* y, int64_t num) {
  DotSums sums;
  int64_t i = 0;
  for (; i + kChains <= num; i += kChains) sums.Add(x + i, y + i);
  if (i < num) {
    float last_x[kChains] = {}, last_y[kChains] = {};
    std::copy(x + i, x + num, last_x);
    std::copy(y + i, y + num, last_y);
    sums.Add(last_x, last_y);
  }
  return sums.Total();
}

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

HWY_EXPORT(DotProduct);

float Dot(const float* x, const float* y, int64_t num) {
  return HWY_DYNAMIC_DISPATCH(DotProduct)(x, y, num);
}

}  // namespace nsa::cpu
#endif
