#pragma once
// SelectBlocks of a step's tiles on Hopper, once LaunchPrefillCompressed has left their block sums
// (prefill_choose.cu says how).

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_limits.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// Whether the kernel is built for these operands: those of CanPrefillCompressed, the
// own block forced, at most kMaxPrefillSelected blocks, and tables of at most kMaxChoosePages.
inline constexpr int64_t kMaxChoosePages = 49152;
bool CanPrefillChoose(const SelectArgs& args);

// Fills args.blocks of the tokens that args.tokens.tiles cover, one chunk; other tokens' blocks
// stay as they are. Reads args.q, args.lse and `rows`; of args.rows no memory, and no args.scratch.
void LaunchPrefillChoose(const SelectArgs& args, const PrefillRows& rows,
                         const PrefillBlockSums& block_sums, cudaStream_t stream);

}  // namespace nsa::cuda
