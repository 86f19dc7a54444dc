#pragma once
// SparseAttention of a step's tiles on Hopper: the chain of the prefill kernels.

#include <cstdint>

#include "kernels/device.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// True if every kernel of the chain is built for these operands.
bool CanRunSparsePrefill(const SparseAttentionArgs& args);
int64_t SparsePrefillScratchBytes(const SparseAttentionExtent& extent);
// The tokens of args.tokens.tiles; the others' outputs stay as they are.
void LaunchSparsePrefill(const SparseAttentionArgs& args, const Stream& stream);

}  // namespace nsa::cuda
