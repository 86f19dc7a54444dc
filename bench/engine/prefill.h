#pragma once
// Prefill of prompts of random tokens through the engine's own step loop.

#include <cstdint>

#include "engine/executor.h"

namespace nsa::bench {

// Seconds from submission to the first token of a prompt of num_tokens tokens.
double PrefillSeconds(int64_t num_tokens, Executor& executor);

// The same for two prompts, one after the other, of which the second begins with the first
// num_common tokens of the first one; the executor shares prefixes.
struct PrefixSeconds {
  double cold = 0, warm = 0;
  int64_t num_shared = 0;  // tokens of the second prompt that were found
};
PrefixSeconds MeasurePrefix(int64_t num_tokens, int64_t num_common, Executor& executor);

}  // namespace nsa::bench
