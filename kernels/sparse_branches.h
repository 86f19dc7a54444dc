#pragma once
// SparseAttention as its operations in order, for a backend, or operands, without a fused form.

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/nsa.h"

namespace nsa {

// Cuts scratch into f32 tensors at an alignment that suits every backend. Without memory it only
// counts.
class ScratchCutter {
 public:
  explicit ScratchCutter(void* memory) : memory_(static_cast<std::byte*>(memory)) {}
  TensorView Take(std::initializer_list<int64_t> shape);
  int64_t num_bytes() const { return num_bytes_; }

 private:
  std::byte* memory_;
  int64_t num_bytes_ = 0;
};

struct BranchScratch {
  TensorView out[3];      // [T, H, d_v] of cmp, sel, win
  TensorView lse[3];      // [T, H]
  TensorView importance;  // SelectArgs::scratch
};
// Of extent.num_tokens tokens, with importance_rows rows of extent.max_pages importances.
BranchScratch TakeBranchScratch(const SparseAttentionExtent& extent, int64_t importance_rows,
                                ScratchCutter& cutter);

// Runs the operations over all tokens of args; args.scratch is not used.
void RunBranches(const SparseAttentionArgs& args, const BranchScratch& scratch,
                 const Stream& stream);

}  // namespace nsa
