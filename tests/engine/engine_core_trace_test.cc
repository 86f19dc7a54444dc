// Traces on their way through the engine's core, with steps that run ahead and without.

#include <memory>
#include <numeric>

#include "engine/engine_core.h"
#include "gtest/gtest.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/fake_executor.h"

namespace nsa {
namespace {

constexpr ExecutorLimits kLimits{.page_tokens = 4,
                                 .num_pages = 6,
                                 .max_num_seqs = 4,
                                 .max_chunk_tokens = 8,
                                 .max_batched_tokens = 16,
                                 .vocab_size = 1000};

Request MakeRequest(RequestId id, int64_t num_prompt_tokens) {
  Request request{.id = id, .max_tokens = 8};
  request.prompt.resize(num_prompt_tokens);
  std::iota(request.prompt.begin(), request.prompt.end(), 0);
  return request;
}

class EngineCoreTraceTest : public testing::TestWithParam<int> {};

TEST_P(EngineCoreTraceTest, TracesComeWhereAskedForWithTheirPositionAndTraffic) {
  FakeExecutor executor(kLimits, GetParam());
  EngineCore core(&executor, 64, [] { return absl::FromUnixSeconds(1000); });
  const auto sink = std::make_shared<CollectingSink>();
  Request traced = MakeRequest(1, 5);
  traced.traces_blocks = true;
  core.Submit(MakeRequest(2, 9), sink, absl::FromUnixSeconds(999));
  core.Submit(traced, sink, absl::FromUnixSeconds(1000));
  while (!core.idle()) {
    for (const Delivery& delivery : core.Step().deliveries) delivery.sink->OnToken(delivery.event);
  }
  EXPECT_EQ(executor.violation(), "");
  EXPECT_GT(core.stats().num_preemptions, 0);
  int64_t position = 4;  // of the last prompt token
  for (const TokenEvent& event : sink->EventsOf(1)) {
    if (!event.has_token) continue;
    ASSERT_NE(event.trace, nullptr);
    EXPECT_EQ(event.trace->position, position);
    EXPECT_EQ(event.trace->blocks, std::vector<int32_t>{static_cast<int32_t>(position)});
    const KvTraffic traffic = executor.DecodeTraffic(position + 1);
    EXPECT_EQ(event.trace->traffic.read_bytes, traffic.read_bytes);
    EXPECT_EQ(event.trace->traffic.dense_bytes, traffic.dense_bytes);
    ++position;
  }
  EXPECT_EQ(position, 4 + 8);
  for (const TokenEvent& event : sink->EventsOf(2)) EXPECT_EQ(event.trace, nullptr);
  // Blocks are counted in the steps whose bytes are; FakeExecutor says 3 bytes per visible one.
  const KvTraffic& sum = core.stats().traffic;
  EXPECT_EQ(3 * sum.visible_blocks, sum.dense_bytes);
  EXPECT_EQ(sum.chosen_blocks, sink->EventsOf(1).back().traffic.chosen_blocks +
                                   sink->EventsOf(2).back().traffic.chosen_blocks);
  EXPECT_GT(sum.chosen_blocks, 0);
}

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineCoreTraceTest, testing::Values(0, 1));

}  // namespace
}  // namespace nsa
