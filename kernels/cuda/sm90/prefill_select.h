#pragma once
// SelectBlocks of a step's tiles on Hopper (prefill_select.cu says how).

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/prefill_compressed_rows.h"
#include "kernels/cuda/sm90/prefill_limits.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// True if the kernel is built for these operands: q and rows of one 16-bit type, d_k 64, 128 or
// 192, group size 16, pages of 4 rows with spans of 1 or 2 strides or pages of one row, at most
// kMaxPrefillSelected blocks.
bool CanPrefillSelect(const SelectArgs& args);

// Bytes of `scratch` on the current device; 16-byte aligned.
int64_t PrefillSelectBytes(const SparseAttentionExtent& extent);

// SelectBlocks of the tokens that args.tokens.tiles cover; other tokens' blocks stay as they are.
// args.rows and args.scratch are not read: `rows` holds the step's rows (LaunchGatherPrefillRows).
// A token's choice does not depend on the batch, on how a prefill is cut into steps, or on
// `num_sms`, the multiprocessors to use, at most the device's.
void LaunchPrefillSelect(const SelectArgs& args, const PrefillRows& rows, void* scratch,
                         int num_sms, cudaStream_t stream);

}  // namespace nsa::cuda
