#pragma once
// How an attention over a batch is cut into tasks for Attend. Each attention op says only which
// rows a token sees.

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "base/tensor_view.h"
#include "kernels/device.h"
#include "kernels/paged_kv.h"

namespace nsa::cpu {

// What the attention ops' args have in common.
struct AttentionOperands {
  const TokenMap& tokens;
  const TensorView& q;
  const PagedKv& kv;
  const TensorView& out;
  const TensorView& lse;
  float softmax_scale;
};

// Rows [begin, end) of a token's sequence, of all pages or of the chosen ones alone (KvRows).
struct VisibleRows {
  int64_t begin = 0;
  int64_t end = 0;
  const int32_t* chosen = nullptr;
};

// The rows that a token at `position` sees through a KV head; not called for padding.
using VisibleFn = absl::FunctionRef<VisibleRows(int64_t token, int64_t position, int64_t kv_head)>;

void AttendBatch(const AttentionOperands& operands, VisibleFn visible, const Stream& stream);

}  // namespace nsa::cpu
