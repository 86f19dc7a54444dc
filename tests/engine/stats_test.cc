#include "engine/stats.h"

#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(HistogramTest, ABoundBelongsToTheBucketBelowIt) {
  Histogram histogram({1, 2, 5});
  for (double value : {0.5, 1.0, 1.5, 2.0, 5.0, 5.1, 100.0}) histogram.Observe(value);
  EXPECT_EQ(histogram.counts, (std::vector<uint64_t>{2, 2, 1, 2}));
  EXPECT_EQ(histogram.total(), 7U);
  EXPECT_DOUBLE_EQ(histogram.sum, 115.1);
}

TEST(HistogramTest, ATimeThatRanBackwardsIsZero) {
  Histogram histogram({1});
  histogram.Observe(-3);
  EXPECT_EQ(histogram.counts, (std::vector<uint64_t>{1, 0}));
  EXPECT_EQ(histogram.sum, 0);
}

TEST(HistogramTest, WithoutBoundsEverythingIsInOneBucket) {
  Histogram histogram;
  histogram.Observe(7);
  EXPECT_EQ(histogram.counts, (std::vector<uint64_t>{1}));
}

TEST(EngineStatsTest, StartAtZeroWithBoundsThatRise) {
  const EngineStats stats = MakeEngineStats(1000);
  for (const Histogram* histogram :
       {&stats.time_to_first_token, &stats.inter_token_latency, &stats.e2e_latency,
        &stats.queue_time, &stats.prefill_time, &stats.decode_time, &stats.request_prompt_tokens,
        &stats.request_generated_tokens, &stats.step_tokens, &stats.step_seconds}) {
    ASSERT_FALSE(histogram->bounds.empty());
    EXPECT_EQ(histogram->counts.size(), histogram->bounds.size() + 1);
    EXPECT_EQ(histogram->total(), 0U);
    for (size_t i = 1; i < histogram->bounds.size(); ++i) {
      EXPECT_LT(histogram->bounds[i - 1], histogram->bounds[i]);
    }
  }
  EXPECT_EQ(stats.num_admitted, 0);
}

TEST(EngineStatsTest, TokenBoundsEndAtTheLongestRequest) {
  EXPECT_EQ(MakeEngineStats(1000).request_prompt_tokens.bounds,
            (std::vector<double>{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}));
  EXPECT_EQ(MakeEngineStats(999).request_generated_tokens.bounds.back(), 500);
  EXPECT_EQ(MakeEngineStats(1).request_prompt_tokens.bounds, (std::vector<double>{1}));
}

}  // namespace
}  // namespace nsa
