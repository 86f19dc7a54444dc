#include "kernels/logit_edits.h"

#include "kernels/backends.h"

namespace nsa {

void EditLogits(const EditLogitsArgs& args, const Stream& stream) {
  const int64_t num_rows = args.rows.dim(0);
  if (num_rows == 0) return;
  const int64_t vocab = args.logits.dim(1);
  NSA_CHECK_SHAPE(args.edit_end, {num_rows});
  NSA_CHECK_SHAPE(args.mask_of, {num_rows});
  NSA_CHECK_SHAPE(args.out, {num_rows, vocab});
  NSA_CHECK_SHAPE(args.masks, {-1, NumMaskWords(vocab)});
  NSA_CHECK_EQ(args.edits.num_bytes() % static_cast<int64_t>(sizeof(LogitEdit)), 0);
  NSA_DISPATCH(EditLogits, args, stream);
}

}  // namespace nsa
