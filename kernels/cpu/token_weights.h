#pragma once
// Probabilities of tokens up to a common factor.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace nsa::cpu {

// A logit that can be ranked: NaN is as unlikely as -inf, +inf is the largest finite number (so
// that differences stay defined), -0 is 0.
inline float CleanLogit(float logit) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  if (std::isnan(logit)) return -std::numeric_limits<float>::infinity();
  return (logit > kLargest ? kLargest : logit) + 0.0F;
}

// weights[i] = exp((logit - max) / temperature) of the clean logits: 1 for the most likely token, 0
// below 2^-126.
struct WeightArgs {
  std::span<const float> logits;
  float max = 0;          // the largest clean logit; finite
  float temperature = 1;  // > 0
  float* weights = nullptr;
};
void TokenWeights(const WeightArgs& args);

// visit(id, clean logit, weight) for ascending ids until it returns false.
template <typename Visit>
void ForEachWeight(std::span<const float> logits, float max, float temperature, Visit&& visit) {
  constexpr size_t kBlock = 512;
  float weights[kBlock];
  for (size_t first = 0; first < logits.size(); first += kBlock) {
    const auto block = logits.subspan(first, std::min(kBlock, logits.size() - first));
    TokenWeights({.logits = block, .max = max, .temperature = temperature, .weights = weights});
    for (size_t i = 0; i < block.size(); ++i) {
      if (!visit(static_cast<int32_t>(first + i), CleanLogit(block[i]), weights[i])) return;
    }
  }
}

}  // namespace nsa::cpu
