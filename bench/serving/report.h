#pragma once
// What a run's records come to.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bench/serving/options.h"
#include "bench/serving/runner.h"

namespace nsa::bench {

// Nearest rank; zeros if there is nothing.
struct Percentiles {
  int64_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};
Percentiles MakePercentiles(std::vector<float> values);

struct Summary {
  double seconds = 0;
  std::map<std::string, int64_t> outcomes;  // every one, by name
  std::map<std::string, int64_t> statuses;
  int64_t prompt_tokens = 0;  // as planned, of the calls that were answered whole
  int64_t output_tokens = 0;  // of all calls
  double calls_per_second = 0, tokens_per_second = 0;  // answered whole; of all calls
  // Calls that were answered whole and within the bounds, per second and of those that count: all
  // but the cancelled ones.
  double goodput_per_second = 0, goodput_share = 0;
  // From the intended arrival. First tokens of all calls that got one, ends of those answered
  // whole.
  Percentiles ttft_ms, e2e_ms, refusal_ms;
  Percentiles refusal_from_sent_ms;  // without the client's own lateness
  Percentiles itl_ms;                // between events with text
  Percentiles late_ms;   // from the intended arrival to the sending: the client's own share
  Percentiles added_ms;  // from a token's commit to its receipt (overhead_server)
};
Summary Summarize(const BenchOptions& options, const RunResult& result);

std::string SummaryJson(const BenchOptions& options, const Summary& summary);
std::string SummaryTable(const Summary& summary);

}  // namespace nsa::bench
