#include "kernels/sampling.h"

#include <algorithm>

#include "kernels/backends.h"

namespace nsa {
namespace {

int64_t NumEditedRows(const SampleArgs& args) {
  return args.edited_logits.empty() ? 0 : args.edited_logits.dim(0);
}

void CheckEdits(const SampleArgs& args) {
  const int64_t num_rows = NumEditedRows(args), vocab = args.logits.dim(1);
  if (num_rows == 0) return;
  NSA_CHECK_SHAPE(args.edited_logits, {num_rows, vocab});
  NSA_CHECK_SHAPE(args.edits.edit_end, {num_rows});
  const int64_t num_masks = args.edits.masks.dim(0) == 0 ? 0 : num_rows;
  NSA_CHECK_SHAPE(args.edits.masks, {num_masks, NumMaskWords(vocab)});
  NSA_CHECK_EQ(args.edits.edits.num_bytes() % static_cast<int64_t>(sizeof(LogitEdit)), 0);
}

// The outputs that the rows ask for, and the rows' ranges.
void CheckRows(const SampleArgs& args) {
  const int64_t num_rows = args.logits.dim(0);
  const bool wants_logprobs =
      std::any_of(args.rows.begin(), args.rows.end(),
                  [](const SampleRow& r) { return r.num_top_logprobs >= 0; });
  const bool wants_top = std::any_of(args.rows.begin(), args.rows.end(),
                                     [](const SampleRow& r) { return r.num_top_logprobs > 0; });
  if (wants_logprobs) {
    NSA_CHECK_SHAPE(args.logprobs, {num_rows});
  }
  if (wants_top) {
    NSA_CHECK_SHAPE(args.top_tokens, {num_rows, kMaxTopLogprobs});
    NSA_CHECK_SHAPE(args.top_logprobs, {num_rows, kMaxTopLogprobs});
  }
  for (const SampleRow& row : args.rows) {
    NSA_CHECK_LE(row.num_top_logprobs, kMaxTopLogprobs);
    NSA_CHECK_GE(row.params.temperature, 0);
    NSA_CHECK_LT(row.edited_row, NumEditedRows(args));
    NSA_CHECK_LT(row.scored_token, args.logits.dim(1));
    NSA_CHECK(row.params.min_p <= 1) << "min_p " << row.params.min_p << " would keep nothing";
  }
}

void CheckAllOutputs(const SampleArgs& args) {
  const int64_t num_rows = args.logits.dim(0);
  NSA_CHECK_SHAPE(args.logprobs, {num_rows});
  NSA_CHECK_SHAPE(args.top_tokens, {num_rows, kMaxTopLogprobs});
  NSA_CHECK_SHAPE(args.top_logprobs, {num_rows, kMaxTopLogprobs});
  NSA_CHECK_SHAPE(args.finite, {num_rows});
}

}  // namespace

void SampleTokens(const SampleArgs& args, const Stream& stream) {
  const int64_t num_rows = static_cast<int64_t>(args.rows.size());
  NSA_CHECK_SHAPE(args.logits, {num_rows, -1});
  NSA_CHECK_SHAPE(args.tokens, {num_rows});
  CheckEdits(args);
  if (num_rows > 0) {
    NSA_CHECK_GE(args.logits.dim(1), 1);
  }
  if (!args.finite.empty()) {
    NSA_CHECK_SHAPE(args.finite, {num_rows});
    NSA_CHECK(args.finite.dtype() == DType::kU8) << args.finite.ToString();
  }
  if (stream.device == DeviceType::kCpu) {
    CheckRows(args);
  } else {
    CheckAllOutputs(args);
  }
  NSA_DISPATCH(SampleTokens, args, stream);
}

}  // namespace nsa
