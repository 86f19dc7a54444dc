#include "kernels/backends.h"
#include "kernels/cpu/attention.h"

namespace nsa::cpu {

// Tokens [0, t].
void DenseAttention(const DenseAttentionArgs& args, const Stream& stream) {
  const AttentionOperands operands{args.tokens, args.q,   args.kv,
                                   args.out,    args.lse, args.softmax_scale};
  const auto visible = [](int64_t, int64_t position, int64_t) -> VisibleRows {
    return {.begin = 0, .end = position + 1};
  };
  AttendBatch(operands, visible, stream);
}

}  // namespace nsa::cpu
