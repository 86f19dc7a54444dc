#include <algorithm>
#include <limits>
#include <span>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

void Forbid(const int32_t* mask, std::span<float> logits) {
  for (size_t v = 0; v < logits.size(); ++v) {
    const auto word = static_cast<uint32_t>(mask[v / 32]);
    if ((word >> (v % 32) & 1) == 0) logits[v] = -std::numeric_limits<float>::infinity();
  }
}

void Apply(const LogitEdit& edit, std::span<float> logits) {
  NSA_CHECK(edit.token >= 0 && edit.token < static_cast<int64_t>(logits.size())) << edit.token;
  float& logit = logits[static_cast<size_t>(edit.token)];
  logit = (logit > 0 ? logit / edit.factor : logit * edit.factor) + edit.shift;
}

}  // namespace

void EditLogits(const EditLogitsArgs& args, const Stream& stream) {
  const int64_t vocab = args.logits.dim(1), num_masks = args.masks.dim(0);
  const auto* edits = static_cast<const LogitEdit*>(args.edits.raw());
  const auto num_edits = args.edits.num_bytes() / static_cast<int64_t>(sizeof(LogitEdit));
  const auto* ends = args.edit_end.data<int32_t>();
  ParallelFor(stream, args.rows.dim(0), [&](int64_t e, int) {
    const int64_t row = args.rows.data<int32_t>()[e];
    NSA_CHECK(row >= 0 && row < args.logits.dim(0)) << row;
    const float* from = args.logits.data<float>() + row * vocab;
    const std::span<float> out(args.out.data<float>() + e * vocab, static_cast<size_t>(vocab));
    std::copy_n(from, vocab, out.begin());
    const int32_t mask = args.mask_of.data<int32_t>()[e];
    NSA_CHECK_LT(mask, num_masks);
    if (mask >= 0) Forbid(args.masks.data<int32_t>() + mask * args.masks.dim(1), out);
    const int64_t begin = e == 0 ? 0 : ends[e - 1];
    NSA_CHECK(begin <= ends[e] && ends[e] <= num_edits) << begin << " to " << ends[e];
    for (int64_t i = begin; i < ends[e]; ++i) Apply(edits[i], out);
  });
}

}  // namespace nsa::cpu
