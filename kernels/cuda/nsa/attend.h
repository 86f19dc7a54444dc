#pragma once
// The portable attention kernel: every attention op of nsa.h is it with other visible rows.

#include <cstdint>

#include "kernels/nsa.h"

namespace nsa::cuda {

// Which rows a token at `position` sees, as kernels take it. Rows [begin, end) of a sequence of
// rows, which is the cache's own, or that of the chosen blocks alone, one after another.
enum class VisibleKind : uint8_t { kCompressed, kSelected, kWindow, kDense };

struct AttendArgs {
  VisibleKind kind;
  NsaShape shape;  // kWindow: window_tokens alone; kDense: not read
  const TokenMap& tokens;
  const TensorView& q;  // [T, H, d_k] activation
  const PagedKv& kv;
  const TensorView* blocks;  // kSelected: [T, K, num_selected] i32
  const TensorView& out;     // out: [T, H, d_v] activation
  const TensorView& lse;     // out: [T, H] f32
  float softmax_scale;
};
void LaunchAttend(const AttendArgs& args, const Stream& stream);

}  // namespace nsa::cuda
