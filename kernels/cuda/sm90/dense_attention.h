#pragma once
// Full causal attention on Hopper: prefill tiles and decode tokens, each with a kernel of its own.

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/nsa.h"

namespace nsa::cuda {

// True if the prefill kernel is built for these operands: q, out and caches of one 16-bit type,
// head dims of instances.cmake, groups of 16 heads, pages of 64 tokens.
bool CanRunDensePrefill(const DenseAttentionArgs& args);

// The tokens of args.tokens.tiles.
void LaunchDensePrefill(const DenseAttentionArgs& args, int num_sms, cudaStream_t stream);

// The same for the decode kernel, with groups of up to 16 heads.
bool CanRunDenseDecode(const DenseAttentionArgs& args);

// Tokens [0, num_tokens), whichever they are; padding writes 0 and lse -inf. Can be captured in a
// graph: the grid depends on num_tokens only.
void LaunchDenseDecode(const DenseAttentionArgs& args, int64_t num_tokens, cudaStream_t stream);

}  // namespace nsa::cuda
