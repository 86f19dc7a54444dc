#include "kernels/backends.h"
#include "kernels/cpu/attention.h"

namespace nsa::cpu {

// The chosen blocks one after another, as one virtual sequence. Blocks ascend, so only the last can
// be the token's own, which it sees up to itself. If all blocks are chosen, this is DenseAttention,
// bit for bit.
void SelectedAttention(const SelectedAttentionArgs& args, const Stream& stream) {
  const AttentionOperands operands{args.tokens, args.q,   args.kv,
                                   args.out,    args.lse, args.softmax_scale};
  const int64_t num_kv_heads = args.kv.num_kv_heads();
  const int64_t num_selected = args.shape.num_selected;
  const int64_t block_tokens = args.shape.block_tokens;
  const auto visible = [&](int64_t token, int64_t position, int64_t kv_head) -> VisibleRows {
    const int32_t* chosen =
        args.blocks.data<int32_t>() + (token * num_kv_heads + kv_head) * num_selected;
    int64_t num_chosen = 0;
    while (num_chosen < num_selected && chosen[num_chosen] >= 0) ++num_chosen;
    int64_t end = num_chosen * block_tokens;
    if (num_chosen > 0 && chosen[num_chosen - 1] == position / block_tokens) {
      end -= block_tokens - 1 - position % block_tokens;
    }
    return {.begin = 0, .end = end, .chosen = chosen};
  };
  AttendBatch(operands, visible, stream);
}

}  // namespace nsa::cpu
