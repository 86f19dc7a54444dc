#pragma once
// TensorView: address, dtype and shape of a dense row-major tensor that somebody else owns.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/check.h"
#include "base/dtype.h"

namespace nsa {

inline constexpr int kMaxRank = 4;

class TensorView {
 public:
  TensorView() = default;
  TensorView(void* data, DType dtype, std::initializer_list<int64_t> shape);

  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  int64_t dim(int axis) const { return shape_[axis]; }
  // Elements between neighbours along `axis`.
  int64_t stride(int axis) const { return strides_[axis]; }
  int64_t num_elements() const;
  int64_t num_bytes() const { return num_elements() * DTypeBytes(dtype_); }
  void* raw() const { return data_; }

  // Typed access; a wrong T is a programmer error.
  template <typename T>
  T* data() const {
    NSA_CHECK(DTypeOf<T>::kValue == dtype_) << "tensor holds " << DTypeName(dtype_);
    return static_cast<T*>(data_);
  }

  // Rows [start, start + num_rows) of axis 0.
  TensorView Slice(int64_t start, int64_t num_rows) const;
  // The same elements under another shape.
  TensorView Reshape(std::initializer_list<int64_t> shape) const;
  // True if the shape is `shape`, where -1 stands for any extent.
  bool HasShape(std::initializer_list<int64_t> shape) const;
  // "bf16[4, 128]", for messages.
  std::string ToString() const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<int64_t, kMaxRank> shape_{};
  std::array<int64_t, kMaxRank> strides_{};
};

}  // namespace nsa

// Fails with both shapes unless `view` has dtype and shape; -1 stands for any extent.
#define NSA_CHECK_SHAPE(view, ...) \
  NSA_CHECK((view).HasShape(__VA_ARGS__)) << #view " is " << (view).ToString()
