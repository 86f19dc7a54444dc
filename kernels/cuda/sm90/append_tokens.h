#pragma once
// AppendTokens of a decode step in one launch (append_tokens.cu says how).

#include "kernels/device.h"
#include "kernels/nsa.h"

namespace nsa::cuda {

// Every emitting block looks through the step's positions, which takes 256 threads one turn.
inline constexpr int64_t kMaxAppendTokens = 256;

// True if the kernel is built for these operands: decode tokens alone, at most kMaxAppendTokens of
// them; packed, caches and phi of one 16-bit type; phi linear or mlp.
bool CanAppendTokens(const AppendArgs& args);

// Can be captured in a graph. Before it waits for the kernels in front it reads positions,
// sequences, tables, weights, frequencies and the raw rows of earlier steps, which those must not
// write.
void LaunchAppendTokens(const AppendArgs& args, const Stream& stream);

}  // namespace nsa::cuda
