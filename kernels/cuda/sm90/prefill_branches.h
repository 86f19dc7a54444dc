#pragma once
// The selected and the window branch of prefill tokens and the gated combination of all three
// branches, as one chain of kernels (prefill_plan.h says how).

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/sm90/prefill_limits.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// Where the chain changes its way. Results differ by rounding only; tests set other values to reach
// every path with few tokens.
struct PrefillTuning {
  // Tiles whose partials exist at a time: more tiles share loads of K and V, fewer need less
  // scratch. 33 tiles have 33 * 8 groups of 8 tokens per KV head, which the 132 multiprocessors of
  // an H100 or H200 share evenly.
  int64_t chunk_tiles = 66;
  // Tokens whose own block is below this attend all blocks at once and mask: as cheap as partials
  // while few of the blocks are masked. At most 64.
  int32_t inline_blocks = 32;
};

struct PrefillBranchesArgs {
  NsaShape shape;
  TokenMap tokens;         // only the tokens of tokens.tiles are computed
  TensorView q;            // [T, H, d_k] bf16 or f16, RoPE applied
  TensorView gate_logits;  // [T, H, 3] f32, last axis cmp, sel, win
  TensorView cmp;          // [T, H, d_v] dtype of q: the compressed branch's output
  TensorView blocks;       // [T, K, num_selected] i32, as SelectBlocks makes them
  PagedKv sel, win;        // dtype of q
  TensorView out;          // out: [T, H, d_v] dtype of q
  TensorView scratch;      // [PrefillBranchesScratchBytes of a step at least this large] u8
  float softmax_scale = 0;
  PrefillTuning tuning = {};
};

// True if the kernels are built for these operands: one 16-bit type, head dims of instances.cmake,
// groups of 16 heads, blocks and pages of 64 tokens, a window cache of a multiple of 64 rows, the
// own block forced, and at most kMaxPrefillSelected blocks.
bool CanRunPrefillBranches(const PrefillBranchesArgs& args);

int64_t PrefillBranchesScratchBytes(const SparseAttentionExtent& extent,
                                    const PrefillTuning& tuning = {});

// Deterministic: a token's bits depend on its own inputs and its sequence's cache alone.
void LaunchPrefillBranches(const PrefillBranchesArgs& args, int num_sms, cudaStream_t stream);

}  // namespace nsa::cuda
