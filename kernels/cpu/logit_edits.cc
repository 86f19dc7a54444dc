#include "kernels/cpu/logit_edits.h"

#include <limits>

#include "base/check.h"

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
  logit = EditedLogit(edit, logit);
}

}  // namespace

void EditRow(const LogitEdits& edits, int64_t edited_row, std::span<float> logits) {
  if (edits.masks.dim(0) > 0) {
    Forbid(edits.masks.data<int32_t>() + edited_row * edits.masks.dim(1), logits);
  }
  const auto* list = static_cast<const LogitEdit*>(edits.edits.raw());
  const auto num_edits = edits.edits.num_bytes() / static_cast<int64_t>(sizeof(LogitEdit));
  const auto* ends = edits.edit_end.data<int32_t>();
  const int64_t begin = edited_row == 0 ? 0 : ends[edited_row - 1], end = ends[edited_row];
  NSA_CHECK(0 <= begin && begin <= end && end <= num_edits) << begin << " to " << end;
  for (int64_t i = begin; i < end; ++i) Apply(list[i], logits);
}

}  // namespace nsa::cpu
