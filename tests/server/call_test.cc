#include "server/call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/service_harness.h"

namespace nsa {
namespace {

using testing::ElementsAre;

TEST(CallTest, AStopStringThatEndsAtMaxTokensIsCountedAsAStop) {
  ServiceHarness harness;
  harness.SayBytes("abcdefgh", /*num_prompt_tokens=*/3);
  GenerateCall call{.input = "hi"};
  call.stop = {"cd"};
  const auto count = [&](FinishReason reason) {
    return harness.service.engine_stats().num_finished[static_cast<size_t>(reason)];
  };
  for (const int64_t max_tokens : {3, 4, 5}) {
    const int64_t num_stops = count(FinishReason::kStop), num_cut = count(FinishReason::kLength);
    call.max_tokens = max_tokens;
    const auto observer = std::make_shared<CollectingObserver>();
    const auto handle = harness.service.Generate(call, observer);
    ASSERT_TRUE(handle.ok()) << handle.status();
    observer->Wait();
    const bool stops = max_tokens >= 4;
    EXPECT_THAT(observer->Finishes()[0],
                ElementsAre(stops ? FinishReason::kStop : FinishReason::kLength));
    ASSERT_TRUE(harness.BecomesIdle());
    EXPECT_EQ(count(FinishReason::kStop) - num_stops, stops ? 1 : 0) << max_tokens;
    EXPECT_EQ(count(FinishReason::kLength) - num_cut, stops ? 0 : 1) << max_tokens;
  }
}

}  // namespace
}  // namespace nsa
