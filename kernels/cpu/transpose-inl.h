// Transposition of four rows into columns of fp32; included once per SIMD target.

#if defined(NSA_KERNELS_CPU_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_KERNELS_CPU_TRANSPOSE_INL_H_
#undef NSA_KERNELS_CPU_TRANSPOSE_INL_H_
#else
#define NSA_KERNELS_CPU_TRANSPOSE_INL_H_
#endif

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR
// Without vectors the plain loop of TransposeFourRows does all elements.
template <int64_t kStride, typename T>
HWY_INLINE int64_t TransposeWhole(const T* const*, int64_t, float*) {
  return 0;
}
#else
// Transposes 4x4 elements of 32 bits: out[i] = element i of a, b, c, d.
template <class D, class V = hn::Vec<D> >
HWY_INLINE void Transpose4(D d, V& a, V& b, V& c, V& e) {
  const V ab_lo = hn::InterleaveLower(d, a, b), ab_hi = hn::InterleaveUpper(d, a, b);
  const V ce_lo = hn::InterleaveLower(d, c, e), ce_hi = hn::InterleaveUpper(d, c, e);
  a = hn::ConcatLowerLower(d, ce_lo, ab_lo);
  b = hn::ConcatUpperUpper(d, ce_lo, ab_lo);
  c = hn::ConcatLowerLower(d, ce_hi, ab_hi);
  e = hn::ConcatUpperUpper(d, ce_hi, ab_hi);
}

// to[c * kStride + i] = rows[i][c] for as many c as whole vectors hold; returns how many that is.
template <int64_t kStride>
HWY_INLINE int64_t TransposeWhole(const float* const* rows, int64_t num, float* to) {
  const hn::Full128<float> d;
  int64_t c = 0;
  for (; c + 4 <= num; c += 4) {
    auto r0 = hn::LoadU(d, rows[0] + c), r1 = hn::LoadU(d, rows[1] + c);
    auto r2 = hn::LoadU(d, rows[2] + c), r3 = hn::LoadU(d, rows[3] + c);
    Transpose4(d, r0, r1, r2, r3);
    hn::StoreU(r0, d, to + c * kStride);
    hn::StoreU(r1, d, to + (c + 1) * kStride);
    hn::StoreU(r2, d, to + (c + 2) * kStride);
    hn::StoreU(r3, d, to + (c + 3) * kStride);
  }
  return c;
}

// The same with pairs of bf16 as the transposed elements, which are then split into fp32.
template <int64_t kStride>
HWY_INLINE int64_t TransposeWhole(const BFloat16* const* rows, int64_t num, float* to) {
  const hn::Full128<uint32_t> d;
  const hn::Full128<uint16_t> d16;
  const hn::Full128<float> df;
  const auto load = [&](const BFloat16* from) HWY_ATTR {
    return hn::BitCast(d, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
  };
  const auto store = [&](hn::Vec<hn::Full128<uint32_t> > pairs, float* at) HWY_ATTR {
    const auto high_half = hn::Set(d, 0xffff0000U);
    hn::StoreU(hn::BitCast(df, hn::ShiftLeft<16>(pairs)), df, at);
    hn::StoreU(hn::BitCast(df, hn::And(pairs, high_half)), df, at + kStride);
  };
  int64_t c = 0;
  for (; c + 8 <= num; c += 8) {
    auto r0 = load(rows[0] + c), r1 = load(rows[1] + c);
    auto r2 = load(rows[2] + c), r3 = load(rows[3] + c);
    Transpose4(d, r0, r1, r2, r3);
    store(r0, to + c * kStride);
    store(r1, to + (c + 2) * kStride);
    store(r2, to + (c + 4) * kStride);
    store(r3, to + (c + 6) * kStride);
  }
  return c;
}

#endif

// to[c * kStride + i] = rows[i][c] for i in [0, 4), c in [0, num).
template <int64_t kStride, typename T>
HWY_INLINE void TransposeFourRows(const T* const* rows, int64_t num, float* to) {
  for (int64_t c = TransposeWhole<kStride>(rows, num, to); c < num; ++c) {
    for (int64_t i = 0; i < 4; ++i) to[c * kStride + i] = static_cast<float>(rows[i][c]);
  }
}

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
