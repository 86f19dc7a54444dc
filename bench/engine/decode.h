#pragma once
// Decode steps of sequences at a given context, over a cache of random contents.

#include <cstdint>

#include "engine/model_executor.h"

namespace nsa::bench {

// Fills the first num_tokens tokens' worth of the pool's pages, and all recent pages, with random
// K, V and rows. A decode step takes the time it takes over a computed cache: the same bytes are
// read, wherever the chosen blocks are. A prefill of 64k tokens by full attention would take hours
// on a CPU.
void FillCache(int64_t num_tokens, ModelExecutor& executor);

// Sequences that the limits allow, with pages for num_tokens tokens each.
int64_t MaxSequences(int64_t num_tokens, const ModelExecutor& executor);

// Seconds per step of one round: decode steps of num_seqs sequences that bring each context from
// num_tokens - 15 to num_tokens, so that with a span stride of 16 exactly one step in a round emits
// compressed rows. Steps are launched as far ahead as the executor allows.
double DecodeRoundSeconds(int64_t num_tokens, int64_t num_seqs, ModelExecutor& executor);

}  // namespace nsa::bench
