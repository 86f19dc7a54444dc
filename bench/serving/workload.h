#pragma once
// What a load generator sends: when calls arrive, how long they are, which are cancelled. All of it
// comes from one seed, so that two servers, or two builds, get the same load.

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nsa::bench {

inline constexpr int64_t kDefaultTokens = 128;

// A number of tokens: "128", "16..512" (uniform), or "~128*0.8" (log-normal: median, sigma of the
// logarithm; at most 16 times the median). At least 1.
class LengthDistribution {
 public:
  static absl::StatusOr<LengthDistribution> Parse(const std::string& text);
  LengthDistribution() : LengthDistribution(kDefaultTokens) {}
  explicit LengthDistribution(int64_t fixed) : low_(fixed), high_(fixed) {}

  int64_t Draw(std::mt19937_64& random) const;

 private:
  int64_t low_, high_;  // equal: fixed, or the median of a log-normal one
  double sigma_ = 0;
};

struct PlannedCall {
  int64_t index = 0;
  absl::Duration arrival;  // since the start; zero in a closed loop
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  // The client leaves after so many events with text (0: as soon as it has sent the request);
  // below 0: it stays to the end.
  int64_t cancel_after = -1;
  uint64_t seed = 0;  // of the prompt
};

struct WorkloadOptions {
  double rate = 0;  // mean arrivals per second of a Poisson process; 0: a closed loop
  LengthDistribution prompt_tokens, output_tokens;
  double cancelled_share = 0;
  uint64_t seed = 1;
};

class Workload {
 public:
  explicit Workload(const WorkloadOptions& options) : options_(options), random_(options.seed) {}

  // Calls in order of arrival, without an end.
  PlannedCall Next();

 private:
  const WorkloadOptions options_;
  std::mt19937_64 random_;
  int64_t num_calls_ = 0;
  absl::Duration last_arrival_;
};

// Prompts of a planned call. Ids lie in [300, 4300): ordinary tokens of any vocabulary in use.
std::vector<int32_t> PromptIds(const PlannedCall& call);
// About one token per word.
std::string PromptWords(const PlannedCall& call);

}  // namespace nsa::bench
