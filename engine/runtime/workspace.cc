#include "engine/runtime/workspace.h"

namespace nsa {

TensorView Workspace::Take(DType dtype, std::initializer_list<int64_t> shape) {
  const TensorView shape_only(nullptr, dtype, shape);
  const int64_t num_bytes = Rounded(shape_only.num_bytes());
  NSA_CHECK_LE(used_bytes_ + num_bytes, capacity_bytes()) << shape_only.ToString();
  char* data = static_cast<char*>(memory_.data()) + used_bytes_;
  used_bytes_ += num_bytes;
  return {data, dtype, shape};
}

}  // namespace nsa
