#include "kernels/sampling.h"

#include <algorithm>

#include "kernels/backends.h"

namespace nsa {

void SampleTokens(const SampleArgs& args, const Stream& stream) {
  const int64_t num_rows = static_cast<int64_t>(args.rows.size());
  NSA_CHECK_SHAPE(args.logits, {num_rows, -1});
  NSA_CHECK_SHAPE(args.tokens, {num_rows});
  if (num_rows > 0) {
    NSA_CHECK_GE(args.logits.dim(1), 1);
  }
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
    NSA_CHECK(row.params.min_p <= 1) << "min_p " << row.params.min_p << " would keep nothing";
  }
  NSA_DISPATCH(SampleTokens, args, stream);
}

}  // namespace nsa
