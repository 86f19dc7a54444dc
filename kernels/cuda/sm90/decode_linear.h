#pragma once
// Linear of the few tokens of a decode step, bound by the bytes of the weights
// (decode_linear.cu says how).

#include "kernels/device.h"
#include "kernels/transformer.h"

namespace nsa::cuda {

inline constexpr int64_t kMaxDecodeLinearTokens = 64;

// True if the kernel is built for these operands: x and W of one 16-bit type, out of that or f32,
// 1 to kMaxDecodeLinearTokens tokens, inputs and outputs multiples of 8, addresses of 16 bytes.
bool CanRunDecodeLinear(const LinearArgs& args);

// Context::decode_linear_scratch, for num_sms multiprocessors. It begins with flags, zero before
// the first launch and after every launch.
inline constexpr int64_t kDecodeLinearFlagBytes = 4096;
int64_t DecodeLinearScratchBytes(int64_t num_sms);

// Can be captured in a graph, and gives a token the same bits in any batch. Starts to read weights
// while the kernels before it on the stream still run, so what wrote them must have ended before: a
// copy, or a kernel with an ordinary launch between. Lets the kernel after it start when those
// before it have ended. Its blocks wait for each other: nothing else may keep them from running.
void LaunchDecodeLinear(const LinearArgs& args, const Stream& stream);

}  // namespace nsa::cuda
