// The four attentions of nsa.h over the portable kernel.

#include "kernels/backends.h"
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

void DenseAttention(const DenseAttentionArgs& args, const Stream& stream) {
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

}  // namespace nsa::cuda
