#pragma once
// Which kernels a GPU has beyond the portable ones: one table per operation and phase, and the only
// place that compares compute capabilities.

#include <cstdint>

#include "kernels/cuda/context.h"
#include "kernels/device.h"
#include "kernels/nsa.h"
#include "kernels/transformer.h"

namespace nsa::cuda {

// A kernel, or a chain of them, for the decode tokens or for the tiles of an operation.
template <typename Args>
struct FastKernel {
  const char* name;
  int min_capability, max_capability;  // as Context::compute_capability
  // True if it is compiled for these operands (dtype, head dims, group size, shape).
  bool (*can_run)(const Args& args);
  void (*launch)(const Args& args, const Stream& stream);
  // Scratch that it needs for a step of this extent; null: none.
  int64_t (*scratch_bytes)(const SparseAttentionExtent& extent) = nullptr;
};

// The first of the table that runs these operands on this GPU, or null: the portable kernels. A
// decode kernel gets args whose tokens are the decode tokens alone; a prefill kernel gets all
// tokens and computes those of args.tokens.tiles.
const FastKernel<SparseAttentionArgs>* FindDecodeKernel(const SparseAttentionArgs& args,
                                                        const Context& context);
const FastKernel<SparseAttentionArgs>* FindPrefillKernel(const SparseAttentionArgs& args,
                                                         const Context& context);
const FastKernel<DenseAttentionArgs>* FindDecodeKernel(const DenseAttentionArgs& args,
                                                       const Context& context);
const FastKernel<DenseAttentionArgs>* FindPrefillKernel(const DenseAttentionArgs& args,
                                                        const Context& context);
// Without one, the two operations run one after the other.
const FastKernel<AppendArgs>* FindAppendKernel(const AppendArgs& args, const Context& context);
// Without one, cuBLASLt multiplies.
const FastKernel<LinearArgs>* FindLinearKernel(const LinearArgs& args, const Context& context);

// The most scratch that any kernel for SparseAttention may need on this GPU.
int64_t FastScratchBytes(const SparseAttentionExtent& extent, const Context& context);

}  // namespace nsa::cuda
