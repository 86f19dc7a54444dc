#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/attention.h"

namespace nsa::cpu {

// Tokens [max(0, t - w + 1), t].
void WindowAttention(const WindowAttentionArgs& args, const Stream& stream) {
  const AttentionOperands operands{args.tokens, args.q,   args.kv,
                                   args.out,    args.lse, args.softmax_scale};
  const auto visible = [&](int64_t, int64_t position, int64_t) -> VisibleRows {
    return {.begin = std::max<int64_t>(0, position - args.window_tokens + 1), .end = position + 1};
  };
  AttendBatch(operands, visible, stream);
}

}  // namespace nsa::cpu
