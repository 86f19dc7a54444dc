#pragma once
// Tokens that a step takes from the step before it without the host's knowing them.

#include "base/tensor_view.h"
#include "kernels/device.h"

namespace nsa {

// ids[t] = sampled[-1 - ids[t]] where ids[t] is negative; the other ids stay.
struct PendingTokensArgs {
  TensorView ids;      // in/out: [T] i32
  TensorView sampled;  // [N] i32; -1 - ids[t] lies in [0, N)
};
void TakePendingTokens(const PendingTokensArgs& args, const Stream& stream);

}  // namespace nsa
