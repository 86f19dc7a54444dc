#pragma once
// Copies between tensors of the runtime's device, and from the host to it. copy_host.cc and
// copy_cuda.cc implement them; CMake picks one.

#include <cstdint>
#include <span>

#include "base/tensor_view.h"
#include "kernels/device.h"

namespace nsa {

// destination[t] = columns [first_column, first_column + destination.dim(1)) of source[t]; both are
// [T, *] of one dtype and do not overlap.
void CopyColumns(const TensorView& source, int64_t first_column, const TensorView& destination,
                 const Stream& stream);

// Fills the first values.size() elements of `destination`, i32 device memory, from the host.
void CopyToDevice(std::span<const int32_t> values, const TensorView& destination,
                  const Stream& stream);

}  // namespace nsa
