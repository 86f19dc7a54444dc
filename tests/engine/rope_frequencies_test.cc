#include <cmath>
#include <numbers>

#include "engine/config.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.d_k = 8;
  config.rope_theta = 10000;
  return config;
}

TEST(RopeFrequenciesTest, FallGeometrically) {
  const std::vector<float> frequencies = RopeFrequencies(Config());
  ASSERT_EQ(frequencies.size(), 4U);
  EXPECT_FLOAT_EQ(frequencies[0], 1.0F);
  EXPECT_FLOAT_EQ(frequencies[1], 0.1F);
  EXPECT_FLOAT_EQ(frequencies[2], 0.01F);
  EXPECT_FLOAT_EQ(frequencies[3], 0.001F);
}

TEST(RopeFrequenciesTest, LinearScalingDividesAll) {
  ModelConfig config = Config();
  config.rope_scaling = RopeScaling::kLinear;
  config.rope_factor = 4;
  EXPECT_FLOAT_EQ(RopeFrequencies(config)[0], 0.25F);
  EXPECT_FLOAT_EQ(RopeFrequencies(config)[3], 0.00025F);
}

// With an original context of 100 tokens the four frequencies turn 15.9, 1.59, 0.159 and 0.0159
// times: untouched above 4 turns, divided below 1, blended between.
TEST(RopeFrequenciesTest, Llama3ScalesByTurnsInTheOriginalContext) {
  ModelConfig config = Config();
  config.rope_scaling = RopeScaling::kLlama3;
  config.rope_factor = 8;
  config.rope_low_freq_factor = 1;
  config.rope_high_freq_factor = 4;
  config.rope_original_max_position = 100;
  const std::vector<float> frequencies = RopeFrequencies(config);
  EXPECT_FLOAT_EQ(frequencies[0], 1.0F);
  const double blend = (100 * 0.1 / (2 * std::numbers::pi) - 1) / 3;
  EXPECT_FLOAT_EQ(frequencies[1], static_cast<float>(0.1 * blend + 0.1 / 8 * (1 - blend)));
  EXPECT_FLOAT_EQ(frequencies[2], 0.01F / 8);
  EXPECT_FLOAT_EQ(frequencies[3], 0.001F / 8);
}

}  // namespace
}  // namespace nsa
