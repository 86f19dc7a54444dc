#include "bench/serving/report.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace nsa::bench {
namespace {

using Json = nlohmann::ordered_json;

float Ms(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<float, std::milli>(to - from).count();
}

bool IsGood(const BenchOptions& options, const CallRecord& call) {
  if (call.outcome != Outcome::kOk || call.num_events == 0) return false;
  if (options.ttft_bound_ms > 0 && Ms(call.arrival, call.first_token) > options.ttft_bound_ms) {
    return false;
  }
  if (options.itl_bound_ms == 0 || call.gaps_ms.empty()) return true;
  const auto num_gaps = static_cast<float>(call.gaps_ms.size());
  return Ms(call.first_token, call.last_token) / num_gaps <= options.itl_bound_ms;
}

Json ToJson(const Percentiles& values) {
  return {{"count", values.count}, {"mean", values.mean}, {"p50", values.p50},
          {"p90", values.p90},     {"p99", values.p99},   {"max", values.max}};
}

struct Samples {
  std::vector<float> ttft, e2e, refusal, refusal_from_sent, itl, late, added;

  void Add(const CallRecord& call) {
    if (call.num_events > 0) ttft.push_back(Ms(call.arrival, call.first_token));
    if (call.outcome == Outcome::kOk) e2e.push_back(Ms(call.arrival, call.end));
    if (call.outcome == Outcome::kRefused) {
      refusal.push_back(Ms(call.arrival, call.end));
      refusal_from_sent.push_back(Ms(call.sent, call.end));
    }
    late.push_back(Ms(call.arrival, call.sent));
    itl.insert(itl.end(), call.gaps_ms.begin(), call.gaps_ms.end());
    added.insert(added.end(), call.added_ms.begin(), call.added_ms.end());
  }
};

// The rows of both forms of the report.
std::vector<std::pair<std::string, const Percentiles*>> Rows(const Summary& summary) {
  return {{"ttft_ms", &summary.ttft_ms},
          {"itl_ms", &summary.itl_ms},
          {"e2e_ms", &summary.e2e_ms},
          {"refusal_ms", &summary.refusal_ms},
          {"refusal_from_sent_ms", &summary.refusal_from_sent_ms},
          {"late_ms", &summary.late_ms},
          {"added_ms", &summary.added_ms}};
}

}  // namespace

Percentiles MakePercentiles(std::vector<float> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto num_values = static_cast<double>(values.size());
  const auto rank = [&](double share) {
    return static_cast<double>(values[static_cast<size_t>(std::ceil(share * num_values)) - 1]);
  };
  return {.count = static_cast<int64_t>(values.size()),
          .mean = std::accumulate(values.begin(), values.end(), 0.0) / num_values,
          .p50 = rank(0.5),
          .p90 = rank(0.9),
          .p99 = rank(0.99),
          .max = values.back()};
}

Summary Summarize(const BenchOptions& options, const RunResult& result) {
  Summary summary{.seconds = result.seconds};
  for (const char* name : kOutcomeNames) summary.outcomes[name] = 0;
  Samples samples;
  int64_t num_good = 0;
  for (const CallRecord& call : result.calls) {
    ++summary.outcomes[kOutcomeNames[static_cast<size_t>(call.outcome)]];
    ++summary.statuses[call.status.empty() ? "none" : call.status];
    summary.output_tokens += call.num_tokens;
    if (call.outcome == Outcome::kOk) summary.prompt_tokens += call.prompt_tokens;
    if (IsGood(options, call)) ++num_good;
    samples.Add(call);
  }
  const int64_t num_counted =
      static_cast<int64_t>(result.calls.size()) - summary.outcomes["cancelled"];
  if (num_counted > 0) {
    summary.goodput_share = static_cast<double>(num_good) / static_cast<double>(num_counted);
  }
  if (result.seconds > 0) {
    summary.goodput_per_second = static_cast<double>(num_good) / result.seconds;
    summary.calls_per_second = static_cast<double>(summary.outcomes["ok"]) / result.seconds;
    summary.tokens_per_second = static_cast<double>(summary.output_tokens) / result.seconds;
  }
  summary.ttft_ms = MakePercentiles(std::move(samples.ttft));
  summary.e2e_ms = MakePercentiles(std::move(samples.e2e));
  summary.refusal_ms = MakePercentiles(std::move(samples.refusal));
  summary.refusal_from_sent_ms = MakePercentiles(std::move(samples.refusal_from_sent));
  summary.itl_ms = MakePercentiles(std::move(samples.itl));
  summary.late_ms = MakePercentiles(std::move(samples.late));
  summary.added_ms = MakePercentiles(std::move(samples.added));
  return summary;
}

std::string SummaryJson(const BenchOptions& options, const Summary& summary) {
  Json json = {{"rate", options.workload.rate},
               {"concurrency", options.concurrency},
               {"seed", options.workload.seed},
               {"ttft_bound_ms", options.ttft_bound_ms},
               {"itl_bound_ms", options.itl_bound_ms},
               {"seconds", summary.seconds},
               {"outcomes", summary.outcomes},
               {"statuses", summary.statuses},
               {"prompt_tokens", summary.prompt_tokens},
               {"output_tokens", summary.output_tokens},
               {"calls_per_second", summary.calls_per_second},
               {"tokens_per_second", summary.tokens_per_second},
               {"goodput_per_second", summary.goodput_per_second},
               {"goodput_share", summary.goodput_share}};
  for (const auto& [name, values] : Rows(summary)) json[name] = ToJson(*values);
  return json.dump(2);
}

std::string SummaryTable(const Summary& summary) {
  std::string table;
  for (const auto& [name, count] : summary.outcomes) {
    if (count > 0) absl::StrAppendFormat(&table, "%-14s %10d\n", name, count);
  }
  absl::StrAppendFormat(&table,
                        "%.1f s, %.2f calls/s, %.1f tokens/s, goodput %.2f calls/s (%.1f %%)\n\n",
                        summary.seconds, summary.calls_per_second, summary.tokens_per_second,
                        summary.goodput_per_second, 100 * summary.goodput_share);
  absl::StrAppendFormat(&table, "%-20s %10s %10s %10s %10s %10s\n", "", "count", "p50", "p90",
                        "p99", "max");
  for (const auto& [name, v] : Rows(summary)) {
    if (v->count == 0) continue;
    absl::StrAppendFormat(&table, "%-20s %10d %10.2f %10.2f %10.2f %10.2f\n", name, v->count,
                          v->p50, v->p90, v->p99, v->max);
  }
  return table;
}

}  // namespace nsa::bench
