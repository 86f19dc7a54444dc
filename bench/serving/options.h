#pragma once
// The command line of serving_bench.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/serving/workload.h"

namespace nsa::bench {

struct BenchOptions {
  bool grpc = false;
  std::string host, port;
  bool chat = false;          // HTTP: chat completions instead of completions
  bool words = false;         // prompts are text instead of token ids; chats always are
  std::string model;          // empty: not said
  std::string api_key;        // empty: none
  bool ignore_eos = false;    // not of the OpenAI API; ours and vLLM's
  bool commit_times = false;  // the text says when each token was committed: overhead_server
  WorkloadOptions workload;
  int64_t concurrency = 0;  // of a closed loop; 0: an open loop, with workload.rate
  // Calls begin until either is reached.
  int64_t num_calls = 0;  // 0: no limit
  absl::Duration duration = absl::InfiniteDuration();
  absl::Duration timeout = absl::Seconds(600);
  double ttft_bound_ms = 0, itl_bound_ms = 0;  // of goodput; 0: none
  bool json = false;
  bool help = false;
};

// `arguments` without the program's name. INVALID_ARGUMENT names what is wrong.
absl::StatusOr<BenchOptions> ParseOptions(const std::vector<std::string>& arguments);

std::string OptionsHelp();

}  // namespace nsa::bench
