#pragma once
// CompressedAttention of a step's tiles on Hopper (prefill_compressed.cu says how).

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/prefill_compressed_rows.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// True if the kernel is built for these operands: q, out and rows of one 16-bit type, head dims
// 64/64, 128/128 or 192/128, group sizes 2, 4, 8 and 16.
bool CanPrefillCompressed(const CompressedAttentionArgs& args);

// CompressedAttention of the tokens that args.tokens.tiles cover; other tokens' out and lse stay as
// they are. args.rows is not read: `rows` holds the step's rows (LaunchGatherPrefillRows).
// A token's bits do not depend on the batch, on how a prefill is cut into steps, or on `num_sms`,
// the multiprocessors to use.
void LaunchPrefillCompressed(const CompressedAttentionArgs& args, const PrefillRows& rows,
                             int num_sms, cudaStream_t stream);

}  // namespace nsa::cuda
