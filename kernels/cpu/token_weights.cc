#include "kernels/cpu/token_weights.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/token_weights.cc"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

template <class D>
HWY_INLINE void WeightsAt(D d, const WeightArgs& args, size_t i) {
  const auto largest = hn::Set(d, std::numeric_limits<float>::max());
  const auto raw = hn::LoadU(d, args.logits.data() + i);
  const auto distance = hn::Sub(hn::Min(raw, largest), hn::Set(d, args.max));
  // Divided, not multiplied by an inverse: 0 stays 0 for the smallest temperature.
  const auto scaled = hn::Div(distance, hn::Set(d, args.temperature));
  const auto weight = Exp2(d, hn::Mul(scaled, hn::Set(d, kLog2E)));
  hn::StoreU(hn::IfThenElseZero(hn::Eq(raw, raw), weight), d, args.weights + i);
}

void ComputeWeights(const WeightArgs& args) {
  const hn::CappedTag<float, 16> d;
  const hn::CappedTag<float, 1> d1;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= args.logits.size(); i += hn::Lanes(d)) WeightsAt(d, args, i);
  for (; i < args.logits.size(); ++i) WeightsAt(d1, args, i);
}

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

HWY_EXPORT(ComputeWeights);

void TokenWeights(const WeightArgs& args) { HWY_DYNAMIC_DISPATCH(ComputeWeights)(args); }

}  // namespace nsa::cpu
#endif
