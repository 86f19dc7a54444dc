#pragma once
// The tables of engine_bench, as text or JSON.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"

namespace nsa::bench {

struct DecodeResult {
  int64_t context_tokens = 0;
  double nsa_seconds = 0, full_seconds = 0;     // per token
  int64_t nsa_kv_bytes = 0, full_kv_bytes = 0;  // read per token
};

struct PrefillResult {
  int64_t prompt_tokens = 0;
  double nsa_seconds = 0, full_seconds = 0;  // of the whole prompt
};

// A prompt whose first num_shared tokens were in the cache, against the same length without.
struct PrefixResult {
  int64_t prompt_tokens = 0, num_shared = 0;
  double cold_seconds = 0, warm_seconds = 0;
};

struct Report {
  std::string model;  // one line
  int num_threads = 0;
  int64_t weight_bytes = 0;  // read once per decode step
  double read_gb_per_s = 0;  // of this machine
  std::vector<DecodeResult> decode;
  std::vector<PrefillResult> prefill;
  std::vector<PrefixResult> prefix;
};

// With the targets that the decode times answer to, where both of their contexts were measured.
void PrintText(const Report& report);
void PrintJson(const Report& report);

}  // namespace nsa::bench
