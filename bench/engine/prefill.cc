#include "bench/engine/prefill.h"

#include <memory>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"
#include "engine/engine_core.h"

namespace nsa::bench {
namespace {

std::vector<int32_t> RandomTokens(int64_t num_tokens, uint32_t seed, const Executor& executor) {
  std::vector<int32_t> tokens;
  std::mt19937 random(seed);
  for (int64_t i = 0; i < num_tokens; ++i) {
    tokens.push_back(static_cast<int32_t>(random() % executor.limits().vocab_size));
  }
  return tokens;
}

double FirstTokenSeconds(std::vector<int32_t> prompt, EngineCore& core) {
  const absl::Time started = absl::Now();
  core.Submit({.id = 1, .prompt = std::move(prompt), .max_tokens = 1}, nullptr, started);
  while (!core.idle()) NSA_CHECK(core.Step().status.ok());
  return absl::ToDoubleSeconds(absl::Now() - started);
}

}  // namespace

double PrefillSeconds(int64_t num_tokens, Executor& executor) {
  EngineCore core(&executor, num_tokens + 1, [] { return absl::Now(); });
  return FirstTokenSeconds(RandomTokens(num_tokens, 3, executor), core);
}

PrefixSeconds MeasurePrefix(int64_t num_tokens, int64_t num_common, Executor& executor) {
  NSA_CHECK(executor.limits().shares_prefixes);
  EngineCore core(&executor, num_tokens + 1, [] { return absl::Now(); });
  std::vector<int32_t> prompt = RandomTokens(num_tokens, 3, executor);
  PrefixSeconds seconds{.cold = FirstTokenSeconds(prompt, core)};
  const std::vector<int32_t> own = RandomTokens(num_tokens - num_common, 4, executor);
  std::copy(own.begin(), own.end(), prompt.begin() + num_common);
  seconds.warm = FirstTokenSeconds(std::move(prompt), core);
  seconds.num_shared = core.stats().num_prefix_shared_tokens;
  return seconds;
}

}  // namespace nsa::bench
