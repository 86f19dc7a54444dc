#include "engine/stats.h"

#include <algorithm>
#include <numeric>

namespace nsa {
namespace {

// The bounds are vLLM's, so that existing dashboards fit unchanged; those of inter-token latency
// and of the step go below its 10 ms.
std::vector<double> FirstTokenSeconds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}

std::vector<double> InterTokenSeconds() {
  return {0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
          0.4,   0.5,    0.75,  1,      2.5,  5,     7.5,  10,    20,  40,   80};
}

std::vector<double> RequestSeconds() {
  return {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
}

std::vector<double> StepTokens() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

// 1, 2, 5, 10, 20, 50, ... while not above max_tokens.
std::vector<double> RequestTokens(int64_t max_tokens) {
  std::vector<double> bounds;
  for (int64_t decade = 1; decade <= max_tokens; decade *= 10) {
    for (int64_t digit : {1, 2, 5}) {
      if (digit * decade <= max_tokens) bounds.push_back(static_cast<double>(digit * decade));
    }
  }
  return bounds;
}

}  // namespace

void Histogram::Observe(double value) {
  const double clamped = std::max(value, 0.0);
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), clamped) - bounds.begin();
  ++counts[bucket];
  sum += clamped;
}

uint64_t Histogram::total() const {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

EngineStats MakeEngineStats(int64_t max_request_tokens) {
  EngineStats stats;
  stats.time_to_first_token = Histogram(FirstTokenSeconds());
  stats.inter_token_latency = Histogram(InterTokenSeconds());
  stats.e2e_latency = Histogram(RequestSeconds());
  stats.queue_time = Histogram(RequestSeconds());
  stats.prefill_time = Histogram(RequestSeconds());
  stats.decode_time = Histogram(RequestSeconds());
  stats.request_prompt_tokens = Histogram(RequestTokens(max_request_tokens));
  stats.request_generated_tokens = Histogram(RequestTokens(max_request_tokens));
  stats.step_tokens = Histogram(StepTokens());
  stats.step_seconds = Histogram(InterTokenSeconds());
  return stats;
}

}  // namespace nsa
