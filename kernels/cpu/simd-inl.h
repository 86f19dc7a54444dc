// Vector helpers shared by the CPU kernels; included once per SIMD target (Highway's
// foreach_target).

#if defined(NSA_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_KERNELS_CPU_SIMD_INL_H_
#undef NSA_KERNELS_CPU_SIMD_INL_H_
#else
#define NSA_KERNELS_CPU_SIMD_INL_H_
#endif

#include <cstdint>

#include "base/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Query rows (or tokens) of a register tile. AVX-512 has 32 vector registers, the others 16.
inline constexpr int kTileQueries = HWY_TARGET == HWY_AVX3 ? 8 : 4;

inline constexpr float kLog2E = 1.44269504F;

// N consecutive elements as fp32.
template <class D>
HWY_INLINE hn::Vec<D> LoadF32(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> LoadF32(D d, const BFloat16* from) {
  const hn::Rebind<hwy::bfloat16_t, D> d_bf16;
  return hn::PromoteTo(d, hn::LoadU(d_bf16, reinterpret_cast<const hwy::bfloat16_t*>(from)));
}

// 2^x for x <= 127, relative error below 2e-7; 0 below x = -126 (no denormals), NaN for NaN. The
// coefficients interpolate 2^f at the Chebyshev points of [-0.5, 0.5], with 2^0 = 1 exactly.
template <class D>
HWY_INLINE hn::Vec<D> Exp2(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto lowest = hn::Set(d, -126.0F);
  const auto in_range = hn::Not(hn::Lt(x, lowest));
  const auto clamped = hn::IfThenElse(in_range, x, lowest);
  const auto whole = hn::Round(clamped);
  const auto f = hn::Sub(clamped, whole);
  auto p = hn::Set(d, 1.5453163359779865e-4F);
  p = hn::MulAdd(p, f, hn::Set(d, 1.3390863314270973e-3F));
  p = hn::MulAdd(p, f, hn::Set(d, 9.618083015084267e-3F));
  p = hn::MulAdd(p, f, hn::Set(d, 5.5503569543361664e-2F));
  p = hn::MulAdd(p, f, hn::Set(d, 2.4022650718688965e-1F));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931471824645996e-1F));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0F));
  constexpr int kMantissaBits = 23, kBias = 127;
  const auto exponent = hn::Add(hn::ConvertTo(di, whole), hn::Set(di, kBias));
  const auto power = hn::BitCast(d, hn::ShiftLeft<kMantissaBits>(exponent));
  return hn::IfThenElseZero(in_range, hn::Mul(p, power));
}

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
