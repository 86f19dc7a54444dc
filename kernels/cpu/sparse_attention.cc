#include <algorithm>
#include <cstddef>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

constexpr int64_t kAlignment = 64;

// Cuts scratch into tensors. Without memory it only counts.
class Cutter {
 public:
  explicit Cutter(void* memory) : memory_(static_cast<std::byte*>(memory)) {}

  TensorView Take(std::initializer_list<int64_t> shape) {
    void* data = memory_ == nullptr ? nullptr : memory_ + num_bytes_;
    const TensorView view(data, DType::kF32, shape);
    num_bytes_ += (view.num_bytes() + kAlignment - 1) / kAlignment * kAlignment;
    return view;
  }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  std::byte* memory_;
  int64_t num_bytes_ = 0;
};

struct Scratch {
  TensorView out[3];      // [T, H, d_v] of cmp, sel, win
  TensorView lse[3];      // [T, H]
  TensorView importance;  // [threads, max_pages]
};

Scratch TakeScratch(const SparseAttentionExtent& extent, const Stream& stream, Cutter& cutter) {
  Scratch scratch;
  for (int branch = 0; branch < 3; ++branch) {
    scratch.out[branch] = cutter.Take({extent.num_tokens, extent.num_heads, extent.d_v});
    scratch.lse[branch] = cutter.Take({extent.num_tokens, extent.num_heads});
  }
  scratch.importance = cutter.Take({NumThreads(stream), extent.max_pages});
  return scratch;
}

Scratch TakeScratch(const SparseAttentionArgs& args, const Stream& stream) {
  const SparseAttentionExtent extent{
      .num_tokens = args.tokens.num_tokens(),
      .max_pages = std::max(args.rows.table.dim(1), args.sel.table.dim(1)),
      .num_heads = args.q.dim(1),
      .d_v = args.rows.d_v()};
  Cutter cutter(args.scratch.raw());
  const Scratch scratch = TakeScratch(extent, stream, cutter);
  NSA_CHECK_LE(cutter.num_bytes(), args.scratch.num_bytes());
  return scratch;
}

}  // namespace

int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream) {
  Cutter cutter(nullptr);
  TakeScratch(extent, stream, cutter);
  return cutter.num_bytes();
}

void SparseAttention(const SparseAttentionArgs& args, const Stream& stream) {
  const Scratch scratch = TakeScratch(args, stream);
  const auto& [cmp, sel, win] = scratch.out;
  nsa::CompressedAttention({.shape = args.shape,
                            .tokens = args.tokens,
                            .q = args.q,
                            .rows = args.rows,
                            .out = cmp,
                            .lse = scratch.lse[0],
                            .softmax_scale = args.softmax_scale},
                           stream);
  nsa::SelectBlocks({.shape = args.shape,
                     .tokens = args.tokens,
                     .q = args.q,
                     .rows = args.rows,
                     .lse = scratch.lse[0],
                     .blocks = args.blocks,
                     .scratch = scratch.importance,
                     .softmax_scale = args.softmax_scale},
                    stream);
  nsa::SelectedAttention({.shape = args.shape,
                          .tokens = args.tokens,
                          .q = args.q,
                          .kv = args.sel,
                          .blocks = args.blocks,
                          .out = sel,
                          .lse = scratch.lse[1],
                          .softmax_scale = args.softmax_scale},
                         stream);
  nsa::WindowAttention({.window_tokens = args.shape.window_tokens,
                        .tokens = args.tokens,
                        .q = args.q,
                        .kv = args.win,
                        .out = win,
                        .lse = scratch.lse[2],
                        .softmax_scale = args.softmax_scale},
                       stream);
  nsa::CombineBranches(
      {.gate_logits = args.gate_logits, .cmp = cmp, .sel = sel, .win = win, .out = args.out},
      stream);
}

}  // namespace nsa::cpu
