#pragma once
// Decode steps of one sequence at a given context, over a cache of random contents.

#include <cstdint>

#include "engine/model_executor.h"

namespace nsa::bench {

// Fills the pages of a context of up to `num_tokens` tokens, and all slots, with random K, V and
// rows. A decode step takes the time it takes over a computed cache: the same bytes are read,
// wherever the chosen blocks are. A prefill of 64k tokens by full attention would take hours.
void FillCache(int64_t num_tokens, ModelExecutor& executor);

// Seconds per token of one round: decode steps that bring the context from num_tokens - 15 to
// num_tokens, so that with a span stride of 16 exactly one step emits a compressed row.
double DecodeRoundSeconds(int64_t num_tokens, ModelExecutor& executor);

}  // namespace nsa::bench
