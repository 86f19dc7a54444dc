#include "kernels/backends.h"
#include "kernels/cpu/attention.h"

namespace nsa::cpu {

// Row i is visible iff its span ends at or before t: the first C(t + 1) rows, stored from
// row_offset() on.
void CompressedAttention(const CompressedAttentionArgs& args, const Stream& stream) {
  const AttentionOperands operands{args.tokens, args.q,   args.rows,
                                   args.out,    args.lse, args.softmax_scale};
  const auto visible = [&](int64_t, int64_t position, int64_t) -> VisibleRows {
    const int64_t first = args.shape.row_offset();
    return {.begin = first, .end = first + args.shape.NumRows(position + 1)};
  };
  AttendBatch(operands, visible, stream);
}

}  // namespace nsa::cpu
