#include "bench/serving/report.h"

#include <gmock/gmock.h>

#include "nlohmann/json.hpp"

namespace nsa::bench {
namespace {

using std::chrono::milliseconds;

// A call that arrived at 0, was sent 1 ms late, and got tokens after these times.
CallRecord Answered(const std::vector<int>& token_ms, Outcome outcome = Outcome::kOk) {
  const Clock::time_point start;
  CallRecord call{.arrival = start, .sent = start + milliseconds(1)};
  for (const int ms : token_ms) call.TakeToken(start + milliseconds(ms));
  call.end = start + milliseconds(token_ms.empty() ? 5 : token_ms.back() + 1);
  call.outcome = outcome;
  call.status = "200";
  call.prompt_tokens = 7;
  call.num_tokens = call.num_events;
  return call;
}

TEST(PercentilesTest, AreNearestRanks) {
  std::vector<float> values;
  for (int i = 100; i >= 1; --i) values.push_back(static_cast<float>(i));
  const Percentiles percentiles = MakePercentiles(values);
  EXPECT_EQ(percentiles.p50, 50);
  EXPECT_EQ(percentiles.p90, 90);
  EXPECT_EQ(percentiles.p99, 99);
  EXPECT_EQ(percentiles.max, 100);
  EXPECT_EQ(percentiles.mean, 50.5);
  EXPECT_EQ(MakePercentiles({3}).p50, 3);
  EXPECT_EQ(MakePercentiles({}).count, 0);
}

TEST(ReportTest, CountsFromTheIntendedArrival) {
  const Summary summary = Summarize({}, {.calls = {Answered({20, 30, 50})}, .seconds = 2});
  EXPECT_EQ(summary.ttft_ms.p50, 20);  // not 19, as seen from when it was sent
  EXPECT_EQ(summary.late_ms.p50, 1);
  EXPECT_EQ(summary.e2e_ms.p50, 51);
  EXPECT_EQ(summary.itl_ms.count, 2);
  EXPECT_EQ(summary.itl_ms.max, 20);
  EXPECT_EQ(summary.output_tokens, 3);
  EXPECT_EQ(summary.prompt_tokens, 7);
  EXPECT_EQ(summary.tokens_per_second, 1.5);
}

TEST(ReportTest, SeparatesOutcomes) {
  CallRecord refused = Answered({}, Outcome::kRefused);
  refused.status = "429";
  const Summary summary = Summarize(
      {},
      {.calls = {Answered({20}), refused, Answered({20, 30}, Outcome::kCancelled)}, .seconds = 1});
  EXPECT_EQ(summary.outcomes.at("ok"), 1);
  EXPECT_EQ(summary.outcomes.at("refused"), 1);
  EXPECT_EQ(summary.outcomes.at("cancelled"), 1);
  EXPECT_EQ(summary.outcomes.at("server_error"), 0);
  EXPECT_EQ(summary.statuses.at("429"), 1);
  EXPECT_EQ(summary.refusal_ms.p50, 5);
  EXPECT_EQ(summary.refusal_from_sent_ms.p50, 4);
  EXPECT_EQ(summary.ttft_ms.count, 2);
  EXPECT_EQ(summary.e2e_ms.count, 1);
  EXPECT_EQ(summary.prompt_tokens, 7);
}

TEST(ReportTest, GoodputTakesBothBounds) {
  BenchOptions options;
  const RunResult result{
      .calls = {Answered({20, 30, 40}), Answered({20, 60, 100}), Answered({70, 75}),
                Answered({}, Outcome::kRefused), Answered({20}, Outcome::kCancelled)},
      .seconds = 2};
  EXPECT_EQ(Summarize(options, result).goodput_share, 0.75);
  options.ttft_bound_ms = 50;
  EXPECT_EQ(Summarize(options, result).goodput_share, 0.5);
  options.itl_bound_ms = 10;
  EXPECT_EQ(Summarize(options, result).goodput_share, 0.25);
  EXPECT_EQ(Summarize(options, result).goodput_per_second, 0.5);
}

TEST(ReportTest, JsonHasEveryPart) {
  BenchOptions options;
  options.concurrency = 3;
  const Summary summary = Summarize(options, {.calls = {Answered({20, 30})}, .seconds = 1});
  const auto json = nlohmann::json::parse(SummaryJson(options, summary));
  EXPECT_EQ(json["concurrency"], 3);
  EXPECT_EQ(json["outcomes"]["ok"], 1);
  EXPECT_EQ(json["itl_ms"]["p99"], 10);
  EXPECT_THAT(SummaryTable(summary), testing::HasSubstr("ttft_ms"));
}

}  // namespace
}  // namespace nsa::bench
