#include "base/tensor_view.h"

#include <algorithm>
#include <sstream>

namespace nsa {

TensorView::TensorView(void* data, DType dtype, std::initializer_list<int64_t> shape)
    : data_(data), dtype_(dtype), rank_(static_cast<int>(shape.size())) {
  NSA_CHECK_LE(shape.size(), static_cast<size_t>(kMaxRank));
  std::copy(shape.begin(), shape.end(), shape_.begin());
  int64_t stride = 1;
  for (int axis = rank_ - 1; axis >= 0; --axis) {
    NSA_CHECK_GE(shape_[axis], 0);
    strides_[axis] = stride;
    stride *= shape_[axis];
  }
}

int64_t TensorView::num_elements() const {
  if (rank_ == 0) return 0;
  return shape_[0] * strides_[0];
}

TensorView TensorView::Slice(int64_t start, int64_t num_rows) const {
  NSA_CHECK(start >= 0 && num_rows >= 0 && start + num_rows <= shape_[0])
      << "rows " << start << "+" << num_rows << " of " << ToString();
  TensorView slice = *this;
  slice.data_ = static_cast<char*>(data_) + start * strides_[0] * DTypeBytes(dtype_);
  slice.shape_[0] = num_rows;
  return slice;
}

TensorView TensorView::Reshape(std::initializer_list<int64_t> shape) const {
  TensorView view(data_, dtype_, shape);
  NSA_CHECK_EQ(view.num_elements(), num_elements());
  return view;
}

bool TensorView::HasShape(std::initializer_list<int64_t> shape) const {
  if (static_cast<int>(shape.size()) != rank_) return false;
  int axis = 0;
  for (int64_t extent : shape) {
    if (extent != -1 && extent != shape_[axis]) return false;
    ++axis;
  }
  return true;
}

std::string TensorView::ToString() const {
  std::ostringstream text;
  text << DTypeName(dtype_) << "[";
  for (int axis = 0; axis < rank_; ++axis) text << (axis > 0 ? ", " : "") << shape_[axis];
  text << "]";
  return text.str();
}

}  // namespace nsa
