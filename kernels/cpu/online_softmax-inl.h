// The one merge of partial softmaxes; included once per SIMD target.

#if defined(NSA_KERNELS_CPU_ONLINE_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_KERNELS_CPU_ONLINE_SOFTMAX_INL_H_
#undef NSA_KERNELS_CPU_ONLINE_SOFTMAX_INL_H_
#else
#define NSA_KERNELS_CPU_ONLINE_SOFTMAX_INL_H_
#endif

#include <cmath>
#include <limits>

#include "kernels/cpu/attend.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

inline constexpr double kLn2 = 0.6931471805599453;

// One query's softmax over the tiles seen so far, in base 2. Sums are kept per lane modulo kLanes,
// so that their order is the same for every vector width.
struct OnlineSoftmax {
  static constexpr int64_t kLanes = 16;
  alignas(64) float sums[kLanes] = {};
  float max = -std::numeric_limits<float>::infinity();

  // Turns the dot products of lanes [begin, end) into weights 2^(scale * dot - max), other lanes
  // into 0. Returns the factor by which everything accumulated so far is to be scaled.
  HWY_INLINE float Update(float* HWY_RESTRICT dots, float scale_log2, int64_t begin, int64_t end) {
    const hn::CappedTag<float, kLanes> d;
    using V = hn::Vec<decltype(d)>;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
    const V first = hn::Set(d, static_cast<float>(begin)),
            last = hn::Set(d, static_cast<float>(end));
    V tile_max = hn::Neg(infinity);
    for (int64_t lane = 0; lane < kTileRows; lane += lanes) {
      const V idx = hn::Iota(d, static_cast<float>(lane));
      const auto inside = hn::And(hn::Ge(idx, first), hn::Lt(idx, last));
      const V scaled = hn::Mul(hn::Load(d, dots + lane), hn::Set(d, scale_log2));
      const V score = hn::IfThenElse(inside, scaled, hn::Neg(infinity));
      hn::Store(score, d, dots + lane);
      tile_max = hn::Max(tile_max, score);
    }
    const float new_max = std::fmax(max, hn::GetLane(hn::MaxOfLanes(d, tile_max)));
    // All scores -inf: any finite maximum gives weights 0.
    const float base = std::isinf(new_max) && new_max < 0 ? 0.0F : new_max;
    const float rescale = hn::GetLane(Exp2(d, hn::Set(d, max - base)));
    for (int64_t lane = 0; lane < kLanes; lane += lanes) {
      hn::Store(hn::Mul(hn::Load(d, sums + lane), hn::Set(d, rescale)), d, sums + lane);
    }
    for (int64_t lane = 0; lane < kTileRows; lane += lanes) {
      const V weight = Exp2(d, hn::Sub(hn::Load(d, dots + lane), hn::Set(d, base)));
      hn::Store(weight, d, dots + lane);
      float* sum = sums + lane % kLanes;
      hn::Store(hn::Add(hn::Load(d, sum), weight), d, sum);
    }
    max = new_max;
    return rescale;
  }

  float Sum() const {
    float sum = 0;
    for (float lane : sums) sum += lane;
    return sum;
  }

  // Natural log of the sum of exp(scores); -inf if nothing was seen.
  float LogSumExp(float sum) const {
    return static_cast<float>(static_cast<double>(max) * kLn2 + std::log(static_cast<double>(sum)));
  }
};

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
