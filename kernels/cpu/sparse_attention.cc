#include "kernels/sparse_branches.h"

#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {

int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream) {
  ScratchCutter cutter(nullptr);
  TakeBranchScratch(extent, NumThreads(stream), cutter);
  return cutter.num_bytes();
}

void SparseAttention(const SparseAttentionArgs& args, const Stream& stream) {
  const SparseAttentionExtent extent{
      .num_tokens = args.tokens.num_tokens(),
      .max_pages = std::max(args.rows.table.dim(1), args.sel.table.dim(1)),
      .num_heads = args.q.dim(1),
      .d_v = args.rows.d_v()};
  ScratchCutter cutter(args.scratch.raw());
  const BranchScratch scratch = TakeBranchScratch(extent, NumThreads(stream), cutter);
  NSA_CHECK_LE(cutter.num_bytes(), args.scratch.num_bytes());
  RunBranches(args, scratch, stream);
}

}  // namespace nsa::cpu
