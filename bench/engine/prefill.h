#pragma once
// Prefill of one prompt through the engine's own step loop.

#include <cstdint>

#include "engine/executor.h"

namespace nsa::bench {

// Seconds from submission to the first token of a prompt of num_tokens random tokens.
double PrefillSeconds(int64_t num_tokens, Executor& executor);

}  // namespace nsa::bench
