#include "kernels/sparse_branches.h"

namespace nsa {
namespace {

constexpr int64_t kAlignment = 256;

}  // namespace

TensorView ScratchCutter::Take(std::initializer_list<int64_t> shape) {
  void* data = memory_ == nullptr ? nullptr : memory_ + num_bytes_;
  const TensorView view(data, DType::kF32, shape);
  num_bytes_ += (view.num_bytes() + kAlignment - 1) / kAlignment * kAlignment;
  return view;
}

BranchScratch TakeBranchScratch(const SparseAttentionExtent& extent, int64_t importance_rows,
                                ScratchCutter& cutter) {
  BranchScratch scratch;
  for (int branch = 0; branch < 3; ++branch) {
    scratch.out[branch] = cutter.Take({extent.num_tokens, extent.num_heads, extent.d_v});
    scratch.lse[branch] = cutter.Take({extent.num_tokens, extent.num_heads});
  }
  scratch.importance = cutter.Take({importance_rows, extent.max_pages});
  return scratch;
}

void RunBranches(const SparseAttentionArgs& args, const BranchScratch& scratch,
                 const Stream& stream) {
  const auto& [cmp, sel, win] = scratch.out;
  CompressedAttention({.shape = args.shape,
                       .tokens = args.tokens,
                       .q = args.q,
                       .rows = args.rows,
                       .out = cmp,
                       .lse = scratch.lse[0],
                       .softmax_scale = args.softmax_scale},
                      stream);
  SelectBlocks({.shape = args.shape,
                .tokens = args.tokens,
                .q = args.q,
                .rows = args.rows,
                .lse = scratch.lse[0],
                .blocks = args.blocks,
                .scratch = scratch.importance,
                .softmax_scale = args.softmax_scale},
               stream);
  SelectedAttention({.shape = args.shape,
                     .tokens = args.tokens,
                     .q = args.q,
                     .kv = args.sel,
                     .blocks = args.blocks,
                     .out = sel,
                     .lse = scratch.lse[1],
                     .softmax_scale = args.softmax_scale},
                    stream);
  WindowAttention({.window_tokens = args.shape.window_tokens,
                   .tokens = args.tokens,
                   .q = args.q,
                   .kv = args.win,
                   .out = win,
                   .lse = scratch.lse[2],
                   .softmax_scale = args.softmax_scale},
                  stream);
  CombineBranches(
      {.gate_logits = args.gate_logits, .cmp = cmp, .sel = sel, .win = win, .out = args.out},
      stream);
}

}  // namespace nsa
