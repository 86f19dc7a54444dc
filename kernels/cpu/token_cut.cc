// Radix selection: three histograms over the digits of the keys narrow down the key at which the
// wanted count or mass is reached. No memory but the histogram, no sort, any vocabulary.

#include "kernels/cpu/token_cut.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/token_weights.h"

namespace nsa::cpu {
namespace {

// Bits [low, high) of a key, most significant digit first.
struct Digit {
  int low, high;
  uint32_t Of(uint32_t key) const { return (key >> low) & ((1U << (high - low)) - 1); }
  // True if the keys agree above the digit.
  bool SamePrefix(uint32_t a, uint32_t b) const { return high == 32 || (a ^ b) >> high == 0; }
};
constexpr Digit kDigits[] = {{21, 32}, {10, 21}, {0, 10}};
constexpr int kNumBins = 1 << 11;

struct Histogram {
  double mass[kNumBins];
  int32_t count[kNumBins];
};

// Adds up the masses of the tokens that `within` keeps and whose keys agree with `prefix` above the
// digit. for_each calls visit(id, clean logit, mass).
template <typename ForEach>
void Fill(ForEach&& for_each, const TokenCut& within, uint32_t prefix, Digit digit,
          Histogram& histogram) {
  histogram = {};
  CutScan scan(within);
  for_each([&](int32_t, float logit, double mass) {
    const uint32_t key = LogitKey(logit);
    if (scan.Keeps(key) && digit.SamePrefix(key, prefix)) {
      histogram.mass[digit.Of(key)] += mass;
      ++histogram.count[digit.Of(key)];
    }
    return true;
  });
}

// The highest bin at which the mass from the top down, `above` included, reaches the target; the
// lowest one that holds a token if rounding keeps it from being reached. Adds to `above` the bins
// over it.
uint32_t FindBin(const Histogram& histogram, double target, double& above) {
  uint32_t lowest = 0;
  double above_lowest = above;
  for (int bin = kNumBins - 1; bin >= 0; --bin) {
    if (histogram.count[bin] == 0) continue;
    lowest = static_cast<uint32_t>(bin);
    above_lowest = above;
    if (above + histogram.mass[bin] >= target) return lowest;
    above += histogram.mass[bin];
  }
  above = above_lowest;
  return lowest;
}

// How many of num_at_key tokens of equal mass are needed on top of `above` to reach the target.
int64_t NumNeeded(double above, double each, int64_t num_at_key, double target) {
  int64_t num = 1;
  while (num < num_at_key && above + static_cast<double>(num) * each < target) ++num;
  return num;
}

// target_of(total) turns the total mass of the kept tokens into the mass to reach.
template <typename ForEach, typename TargetOf>
TokenCut CutAtMass(ForEach&& for_each, const TokenCut& within, TargetOf target_of) {
  Histogram histogram;
  uint32_t key = 0, bin = 0;
  double above = 0, target = 0;
  for (const Digit digit : kDigits) {
    Fill(for_each, within, key, digit, histogram);
    if (digit.high == 32) {
      target = target_of(std::accumulate(histogram.mass, histogram.mass + kNumBins, 0.0));
    }
    bin = FindBin(histogram, target, above);
    key |= bin << digit.low;
  }
  const int64_t num_at_key = histogram.count[bin];
  const double each = histogram.mass[bin] / static_cast<double>(num_at_key);
  return {key, NumNeeded(above, each, num_at_key, target)};
}

}  // namespace

TokenCut CutTopK(std::span<const float> logits, int64_t k) {
  const auto for_each = [&](auto&& visit) {
    for (size_t id = 0; id < logits.size(); ++id) {
      visit(static_cast<int32_t>(id), CleanLogit(logits[id]), 1.0);
    }
  };
  return CutAtMass(for_each, TokenCut{},
                   [&](double total) { return std::min(static_cast<double>(k), total); });
}

TokenCut CutTopP(std::span<const float> logits, float max, float temperature,
                 const TokenCut& within, float top_p) {
  const auto for_each = [&](auto&& visit) { ForEachWeight(logits, max, temperature, visit); };
  return CutAtMass(for_each, within,
                   [&](double total) { return static_cast<double>(top_p) * total; });
}

}  // namespace nsa::cpu
