#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/swiglu.cc"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

// out = gate / (1 + exp(-gate)) * up
template <class D>
HWY_INLINE void SiluTimesAt(D d, const float* gate, const float* up, float* out) {
  const auto g = hn::LoadU(d, gate);
  // Beyond the limit the exponential would overflow; silu is 0 to fp32 long before.
  const auto limit = hn::Set(d, 126.0F);
  const auto exponent = hn::Min(hn::Mul(g, hn::Set(d, -kLog2E)), limit);
  const auto silu = hn::Div(g, hn::Add(hn::Set(d, 1.0F), Exp2(d, exponent)));
  hn::StoreU(hn::Mul(silu, hn::LoadU(d, up)), d, out);
}

void SiluTimes(const float* gate, const float* up, int64_t num, float* out) {
  const hn::CappedTag<float, 16> d;
  const hn::CappedTag<float, 1> d1;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= num; i += lanes) SiluTimesAt(d, gate + i, up + i, out + i);
  for (; i < num; ++i) SiluTimesAt(d1, gate + i, up + i, out + i);
}

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

HWY_EXPORT(SiluTimes);

void SwiGlu(const SwiGluArgs& args, const Stream& stream) {
  constexpr int64_t kMinElements = 1 << 12;
  const int64_t dim = args.out.dim(1);
  const int64_t min_rows = kMinElements / std::max<int64_t>(1, dim) + 1;
  ParallelForRows(stream, args.out.dim(0), min_rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = args.gate_up.data<float>() + row * 2 * dim;
      HWY_DYNAMIC_DISPATCH(SiluTimes)(gate, gate + dim, dim, args.out.data<float>() + row * dim);
    }
  });
}

}  // namespace nsa::cpu
#endif
