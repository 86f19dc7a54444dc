#include "bench/serving/stamped_model.h"

#include <gtest/gtest.h>

namespace nsa::bench {
namespace {

TEST(StampTokenizerTest, TokensAreHexadecimalText) {
  const StampTokenizer tokenizer;
  EXPECT_EQ(tokenizer.TokenBytes(0), "000000 ");
  EXPECT_EQ(tokenizer.TokenBytes(0xabc123), "abc123 ");
  EXPECT_EQ(tokenizer.Decode({1, 0xffffff}), "000001 ffffff ");
}

TEST(StampExecutorTest, TokensSayWhenTheStepWasDone) {
  StampExecutor executor(4, std::chrono::microseconds(0));
  Batch batch;
  batch.logit_tokens = {0, 1};
  const auto stamp_now = [] {
    return static_cast<int32_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                    std::chrono::steady_clock::now().time_since_epoch())
                                    .count() &
                                0xffffff);
  };
  const int32_t before = stamp_now();
  const auto sampled = executor.Execute(batch);
  const int32_t after = stamp_now();
  ASSERT_TRUE(sampled.ok());
  ASSERT_EQ(sampled->size(), 2U);
  EXPECT_LE((sampled->front().token - before) & 0xffffff, (after - before) & 0xffffff);
}

TEST(StampExecutorTest, StepsAreApart) {
  StampExecutor executor(4, std::chrono::milliseconds(20));
  const auto start = std::chrono::steady_clock::now();
  for (int step = 0; step < 4; ++step) ASSERT_TRUE(executor.Execute(Batch()).ok());
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(60));
}

}  // namespace
}  // namespace nsa::bench
