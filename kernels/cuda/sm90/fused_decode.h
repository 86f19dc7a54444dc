#pragma once
// The whole sparse chain of decode tokens in one kernel (fused_decode.cu says how).

#include <cuda_runtime.h>

#include "kernels/nsa.h"

namespace nsa::cuda {

inline constexpr int64_t kMaxFusedSelected = 64;

// True if the kernel is built for these operands: q, out and caches of one 16-bit type, head dims
// of instances.cmake, groups of at most 16 heads, blocks of four strides with spans of two
// (32/16/64) or blocks that are span and stride, at most kMaxFusedSelected blocks of which 16 are
// free, one table for rows and tokens, and a table that fits into shared memory (over a million
// tokens at 32/16/64).
bool CanFuseDecode(const SparseAttentionArgs& args);

// Scratch for num_tokens tokens of sequences of up to max_pages pages. Nothing in it outlives the
// launch.
int64_t FusedDecodeScratchBytes(const NsaShape& shape, int64_t num_tokens, int64_t num_kv_heads,
                                int64_t max_pages);

// The kernel runs in several ways, all of which give the same bits: in way i clusters of 2^(i / 2)
// thread blocks, each of which takes a multiprocessor's shared memory for itself if i is even, else
// leaves half of it to another.
inline constexpr int kNumFusedDecodeWays = 10;
inline constexpr int kFastestWay = -1;  // as a model of the times has it

// What a way does with a call's operands: for tests.
struct FusedDecodePlan {
  int num_ranks;         // thread blocks that serve a token and KV head; 0: no room, it cannot be
  int num_tiles;         // of compressed rows, of a block, at most
  int num_shared_tiles;  // those whose sums of blocks stay in shared memory
  bool discards_sums;    // of the other tiles, which are in scratch, once they have been read
};
FusedDecodePlan PlanFusedDecode(const SparseAttentionArgs& args, int way = kFastestWay);

// SparseAttention of args.tokens, each of which is the only one of its sequence if the sequence's
// caches are written in the same step. Can be captured in a graph, and gives a token the same bits
// in any batch. `way` must not be one that cannot be by its plan.
//
// The kernel starts while those before it on the stream may still run, and reads at once what
// earlier steps have left: token map, tables, and the rows that end before the token's own
// position. So between their last writer and this call the stream must have something that nothing
// overtakes: a copy, the launch of a graph, or a kernel that was launched the ordinary way. (An
// engine's step begins with the copy of its token map and tables.) What the step's own kernels
// write for the token (q, gate logits, its K and V, the row that it completes) may come directly
// before, from kernels launched with programmatic serialization too.
void LaunchFusedDecode(const SparseAttentionArgs& args, cudaStream_t stream, int way = kFastestWay);

#ifdef NSA_DECODE_STAGES
// The stamps of the launch before (fused_decode_stages.cuh), after which the device was idle, to
// `stamps`: [4096 blocks][stages] of uint64, ns. Returns the number of stages.
int64_t CopyFusedDecodeStages(void* stamps);
#endif

}  // namespace nsa::cuda
