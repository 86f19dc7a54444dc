#include "bench/engine/prefill.h"

#include <memory>
#include <random>

#include "absl/time/clock.h"
#include "base/check.h"
#include "engine/engine_core.h"

namespace nsa::bench {

double PrefillSeconds(int64_t num_tokens, Executor& executor) {
  EngineCore core(&executor, num_tokens + 1, [] { return absl::Now(); });
  Request request{.id = 1, .max_tokens = 1};
  std::mt19937 random(3);
  for (int64_t i = 0; i < num_tokens; ++i) {
    request.prompt.push_back(static_cast<int32_t>(random() % executor.limits().vocab_size));
  }
  const absl::Time started = absl::Now();
  core.Submit(std::move(request), nullptr, started);
  while (!core.idle()) NSA_CHECK(core.Step().status.ok());
  return absl::ToDoubleSeconds(absl::Now() - started);
}

}  // namespace nsa::bench
