#include <cstring>

#include "engine/runtime/copy.h"

namespace nsa {

void CopyColumns(const TensorView& source, int64_t first_column, const TensorView& destination,
                 const Stream& stream) {
  NSA_CHECK_SHAPE(source, {destination.dim(0), -1});
  NSA_CHECK(source.dtype() == destination.dtype());
  NSA_CHECK_LE(first_column + destination.dim(1), source.dim(1));
  const int64_t element_bytes = DTypeBytes(source.dtype());
  const char* from = static_cast<const char*>(source.raw()) + first_column * element_bytes;
  char* to = static_cast<char*>(destination.raw());
  const int64_t from_bytes = source.stride(0) * element_bytes;
  const int64_t to_bytes = destination.stride(0) * element_bytes;
  stream.threads->ParallelFor(destination.dim(0), [&](int64_t row, int) {
    std::memcpy(to + row * to_bytes, from + row * from_bytes, to_bytes);
  });
}

void CopyToDevice(std::span<const int32_t> values, const TensorView& destination,
                  const Stream& /*stream*/) {
  NSA_CHECK_LE(static_cast<int64_t>(values.size()), destination.num_elements());
  if (values.empty()) return;
  std::memcpy(destination.data<int32_t>(), values.data(), values.size_bytes());
}

}  // namespace nsa
