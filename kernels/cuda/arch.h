#pragma once
// Which kernels a GPU has beyond the portable ones: one table per operation, and the only place
// that compares compute capabilities.

#include <cstdint>

#include "kernels/cuda/context.h"
#include "kernels/device.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

using SparseAttentionLauncher = void (*)(const SparseAttentionArgs& args, const Stream& stream);

// A kernel, or a chain of them, for the decode tokens or for the tiles of SparseAttention.
struct SparseKernel {
  const char* name;
  int min_capability, max_capability;  // as Context::compute_capability
  // True if it is compiled for these operands (dtype, head dims, group size, shape).
  bool (*can_run)(const SparseAttentionArgs& args);
  // Scratch that it needs for a step of this extent, at 256-byte alignment; null: none.
  int64_t (*scratch_bytes)(const SparseAttentionExtent& extent);
  SparseAttentionLauncher launch;
};

// The first of the table that runs these operands on this GPU, or null: the portable kernels. A
// decode kernel gets args whose tokens are the decode tokens alone; a prefill kernel gets all
// tokens and computes those of args.tokens.tiles.
const SparseKernel* FindDecodeKernel(const SparseAttentionArgs& args, const Context& context);
const SparseKernel* FindPrefillKernel(const SparseAttentionArgs& args, const Context& context);

// The most scratch that any kernel of this GPU may need for a step of this extent.
int64_t FastScratchBytes(const SparseAttentionExtent& extent, const Context& context);

}  // namespace nsa::cuda
