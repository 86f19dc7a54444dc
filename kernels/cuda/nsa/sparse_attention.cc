// SparseAttention: decode tokens and tiles through the fast kernels where the GPU has some for the
// operands, everything else through the portable operations.

#include <algorithm>
#include <cstddef>
#include <initializer_list>

#include "kernels/backends.h"
#include "kernels/cuda/arch.h"

namespace nsa::cuda {
namespace {

constexpr int64_t kAlignment = 256;
// Tokens whose branches the portable operations keep in fp32 at a time: bounds the scratch.
constexpr int64_t kPortableTokens = 1024;
constexpr int64_t kSelectBlocksPerSm = 2;

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
  TensorView importance;  // [rows, max_pages]
};

Scratch TakeScratch(const SparseAttentionExtent& extent, const Context& context, Cutter& cutter) {
  const int64_t num_tokens = std::min(extent.num_tokens, kPortableTokens);
  Scratch scratch;
  for (int branch = 0; branch < 3; ++branch) {
    scratch.out[branch] = cutter.Take({num_tokens, extent.num_heads, extent.d_v});
    scratch.lse[branch] = cutter.Take({num_tokens, extent.num_heads});
  }
  scratch.importance = cutter.Take({kSelectBlocksPerSm * context.num_sms(), extent.max_pages});
  return scratch;
}

// The args of tokens [first, first + num) alone, none of which is in a tile.
SparseAttentionArgs SliceTokens(const SparseAttentionArgs& args, int64_t first, int64_t num) {
  SparseAttentionArgs slice = args;
  slice.tokens = {.sequence = args.tokens.sequence.Slice(first, num),
                  .position = args.tokens.position.Slice(first, num)};
  slice.q = args.q.Slice(first, num);
  slice.gate_logits = args.gate_logits.Slice(first, num);
  slice.out = args.out.Slice(first, num);
  slice.blocks = args.blocks.Slice(first, num);
  return slice;
}

// At most kPortableTokens tokens.
void RunPortableChunk(const SparseAttentionArgs& args, const Stream& stream) {
  const SparseAttentionExtent extent{
      .num_tokens = args.tokens.num_tokens(),
      .max_pages = std::max(args.rows.table.dim(1), args.sel.table.dim(1)),
      .num_heads = args.q.dim(1),
      .d_v = args.rows.d_v()};
  Cutter cutter(args.scratch.raw());
  const Scratch scratch = TakeScratch(extent, *stream.cuda, cutter);
  NSA_CHECK_LE(cutter.num_bytes(), args.scratch.num_bytes());
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

void RunPortable(const SparseAttentionArgs& args, const Stream& stream) {
  const int64_t num_tokens = args.tokens.num_tokens();
  for (int64_t first = 0; first < num_tokens; first += kPortableTokens) {
    RunPortableChunk(SliceTokens(args, first, std::min(kPortableTokens, num_tokens - first)),
                     stream);
  }
}

void RunDecode(const SparseAttentionArgs& args, const Stream& stream) {
  const auto* kernel = FindDecodeKernel(args, *stream.cuda);
  kernel == nullptr ? RunPortable(args, stream) : kernel->launch(args, stream);
}

void RunPrefill(const SparseAttentionArgs& args, const Stream& stream) {
  const bool has_tiles = !args.tokens.tiles.empty() && args.tokens.tiles.dim(0) > 0;
  const auto* kernel = has_tiles ? FindPrefillKernel(args, *stream.cuda) : nullptr;
  if (kernel != nullptr) return kernel->launch(args, stream);
  const int64_t first = args.tokens.num_decode_tokens;
  RunPortable(SliceTokens(args, first, args.tokens.num_tokens() - first), stream);
}

}  // namespace

int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream) {
  Cutter cutter(nullptr);
  TakeScratch(extent, *stream.cuda, cutter);
  return std::max(cutter.num_bytes(), FastScratchBytes(extent, *stream.cuda));
}

void SparseAttention(const SparseAttentionArgs& args, const Stream& stream) {
  const int64_t num_decode = args.tokens.num_decode_tokens;
  NSA_CHECK(num_decode >= 0 && num_decode <= args.tokens.num_tokens()) << num_decode;
  if (num_decode > 0) RunDecode(SliceTokens(args, 0, num_decode), stream);
  if (num_decode < args.tokens.num_tokens()) RunPrefill(args, stream);
}

}  // namespace nsa::cuda
