#pragma once
// phi: the l raw rows of one span -> one compressed row, for one KV head.

#include <cstdint>

#include "kernels/nsa.h"

namespace nsa::cpu {

struct PhiArgs {
  PhiKind kind;
  const PhiWeights& weights;
  int64_t kv_head;
  int64_t span_tokens;
  int64_t d;
  const float* span;  // [span_tokens, d], position encoding added
  float* row;         // out: [d]
};
void ApplyPhi(const PhiArgs& args);

}  // namespace nsa::cpu
