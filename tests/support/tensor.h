#pragma once
// Tensors with storage of their own, for tests.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <random>
#include <vector>

#include "base/tensor_view.h"

namespace nsa::testing {

class Tensor {
 public:
  Tensor() = default;
  // All bytes 0xff: NaN in every float type, -1 in i32. What a kernel must not read shows.
  Tensor(DType dtype, std::initializer_list<int64_t> shape);

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: a test passes it like a view
  int64_t num_elements() const { return view_.num_elements(); }

  // Element `index` in row-major order, converted.
  double At(int64_t index) const;
  void Set(int64_t index, double value);
  void Fill(double value);
  template <typename T>
  T* data() const {
    return view_.data<T>();
  }

  // All elements, for comparison bit by bit.
  std::vector<uint8_t> Bytes() const;

 private:
  std::unique_ptr<uint8_t[]> storage_;
  TensorView view_;
};

// Elements from a normal distribution with this standard deviation.
Tensor RandomTensor(DType dtype, std::initializer_list<int64_t> shape, std::mt19937& random,
                    double deviation = 1);
// The same elements rounded to another dtype.
Tensor Converted(const Tensor& from, DType dtype);
Tensor I32Tensor(const std::vector<int32_t>& values);

}  // namespace nsa::testing
