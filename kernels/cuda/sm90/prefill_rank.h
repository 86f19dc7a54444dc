#pragma once
// SelectBlocks of a step's tiles on Hopper, once LaunchPrefillCompressed has left the importances.

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_limits.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// Fills args.blocks of the tokens that args.tokens.tiles cover, one chunk; other tokens' blocks
// stay as they are. At most kMaxPrefillSelected blocks per token. No memory of args.q,
// rows, lse and scratch is read.
void LaunchPrefillRank(const SelectArgs& args, const PrefillImportance& importance,
                       cudaStream_t stream);

}  // namespace nsa::cuda
