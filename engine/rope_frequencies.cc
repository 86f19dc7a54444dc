#include <cmath>
#include <numbers>

#include "engine/config.h"

namespace nsa {
namespace {

// Llama 3: wavelengths that fit often into the original context stay, those longer than it are
// stretched by the factor, and those between are blended.
double ScaleLlama3(double frequency, const ModelConfig& config) {
  const double turns =
      static_cast<double>(config.rope_original_max_position) * frequency / (2 * std::numbers::pi);
  if (turns > config.rope_high_freq_factor) return frequency;
  if (turns < config.rope_low_freq_factor) return frequency / config.rope_factor;
  const double blend = (turns - config.rope_low_freq_factor) /
                       (config.rope_high_freq_factor - config.rope_low_freq_factor);
  return (1 - blend) * frequency / config.rope_factor + blend * frequency;
}

double Scale(double frequency, const ModelConfig& config) {
  switch (config.rope_scaling) {
    case RopeScaling::kNone:
      return frequency;
    case RopeScaling::kLinear:
      return frequency / config.rope_factor;
    case RopeScaling::kLlama3:
      return ScaleLlama3(frequency, config);
  }
  return frequency;
}

}  // namespace

std::vector<float> RopeFrequencies(const ModelConfig& config) {
  std::vector<float> frequencies(config.d_k / 2);
  for (size_t pair = 0; pair < frequencies.size(); ++pair) {
    const double exponent = -2.0 * static_cast<double>(pair) / static_cast<double>(config.d_k);
    frequencies[pair] = static_cast<float>(Scale(std::pow(config.rope_theta, exponent), config));
  }
  return frequencies;
}

}  // namespace nsa
