// The four attentions of nsa.h over the portable kernel; the dense one has faster ones too.

#include "kernels/backends.h"
#include "kernels/cuda/arch.h"
#include "kernels/cuda/nsa/attend.h"

namespace nsa::cuda {

void CompressedAttention(const CompressedAttentionArgs& args, const Stream& stream) {
  LaunchAttend({.kind = VisibleKind::kCompressed,
                .shape = args.shape,
                .tokens = args.tokens,
                .q = args.q,
                .kv = args.rows,
                .blocks = nullptr,
                .out = args.out,
                .lse = args.lse,
                .softmax_scale = args.softmax_scale},
               stream);
}

void SelectedAttention(const SelectedAttentionArgs& args, const Stream& stream) {
  LaunchAttend({.kind = VisibleKind::kSelected,
                .shape = args.shape,
                .tokens = args.tokens,
                .q = args.q,
                .kv = args.kv,
                .blocks = &args.blocks,
                .out = args.out,
                .lse = args.lse,
                .softmax_scale = args.softmax_scale},
               stream);
}

void WindowAttention(const WindowAttentionArgs& args, const Stream& stream) {
  LaunchAttend({.kind = VisibleKind::kWindow,
                .shape = {.window_tokens = args.window_tokens},
                .tokens = args.tokens,
                .q = args.q,
                .kv = args.kv,
                .blocks = nullptr,
                .out = args.out,
                .lse = args.lse,
                .softmax_scale = args.softmax_scale},
               stream);
}

namespace {

// The args of tokens [first, first + num) alone, none of which is in a tile.
DenseAttentionArgs SliceTokens(const DenseAttentionArgs& args, int64_t first, int64_t num) {
  DenseAttentionArgs slice = args;
  slice.tokens = {.sequence = args.tokens.sequence.Slice(first, num),
                  .position = args.tokens.position.Slice(first, num)};
  slice.q = args.q.Slice(first, num);
  slice.out = args.out.Slice(first, num);
  slice.lse = args.lse.Slice(first, num);
  return slice;
}

void RunDense(const DenseAttentionArgs& args, const Stream& stream) {
  LaunchAttend({.kind = VisibleKind::kDense,
                .shape = {},
                .tokens = args.tokens,
                .q = args.q,
                .kv = args.kv,
                .blocks = nullptr,
                .out = args.out,
                .lse = args.lse,
                .softmax_scale = args.softmax_scale},
               stream);
}

}  // namespace

void DenseAttention(const DenseAttentionArgs& args, const Stream& stream) {
  const int64_t num_tokens = args.tokens.num_tokens();
  const int64_t num_decode = args.tokens.num_decode_tokens;
  const bool has_tiles = !args.tokens.tiles.empty() && args.tokens.tiles.dim(0) > 0;
  if (num_decode > 0) {
    const DenseAttentionArgs decode = SliceTokens(args, 0, num_decode);
    const auto* kernel = FindDecodeKernel(decode, *stream.cuda);
    kernel == nullptr ? RunDense(decode, stream) : kernel->launch(decode, stream);
  }
  if (num_decode == num_tokens) return;
  const auto* kernel = has_tiles ? FindPrefillKernel(args, *stream.cuda) : nullptr;
  if (kernel != nullptr) return kernel->launch(args, stream);
  RunDense(SliceTokens(args, num_decode, num_tokens - num_decode), stream);
}

}  // namespace nsa::cuda
