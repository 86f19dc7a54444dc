#pragma once
// CompressedAttention of a step's tiles on Hopper (prefill_compressed.cu says how).

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/prefill_block_sums.h"
#include "kernels/cuda/sm90/prefill_compressed_rows.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// True if the kernels are built for these operands: q, out and rows of one 16-bit type, head dims
// of instances.cmake, group size 16, and pages of one row, or of 4 rows with spans of 1 or 2
// strides.
bool CanPrefillCompressed(const CompressedAttentionArgs& args);

// CompressedAttention of the tokens that args.tokens.tiles cover, one chunk, and their block sums;
// other tokens' out and lse stay as they are. args.rows is not read: `rows` holds the step's rows
// (LaunchGatherPrefillRows). A token's bits do not depend on the batch, on how a prefill is cut
// into steps, or on `num_sms`, the multiprocessors to use.
void LaunchPrefillCompressed(const CompressedAttentionArgs& args, const PrefillRows& rows,
                             const PrefillBlockSums& block_sums, int num_sms, cudaStream_t stream);

}  // namespace nsa::cuda
