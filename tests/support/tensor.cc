#include "tests/support/tensor.h"

#include <algorithm>
#include <cstring>

namespace nsa::testing {

Tensor::Tensor(DType dtype, std::initializer_list<int64_t> shape) : view_(nullptr, dtype, shape) {
  // One element more than needed, so that a tensor without elements has an address too.
  const int64_t num_bytes = view_.num_bytes() + DTypeBytes(dtype);
  storage_ = std::make_unique<uint8_t[]>(static_cast<size_t>(num_bytes));
  std::memset(storage_.get(), 0xff, static_cast<size_t>(num_bytes));
  view_ = TensorView(storage_.get(), dtype, shape);
}

double Tensor::At(int64_t index) const {
  NSA_CHECK(index >= 0 && index < num_elements()) << index << " of " << view_.ToString();
  switch (view_.dtype()) {
    case DType::kF32:
      return data<float>()[index];
    case DType::kBF16:
      return static_cast<float>(data<BFloat16>()[index]);
    case DType::kF16:
      return static_cast<float>(data<Float16>()[index]);
    case DType::kI32:
      return data<int32_t>()[index];
    case DType::kU8:
      return data<uint8_t>()[index];
  }
  return 0;
}

void Tensor::Set(int64_t index, double value) {
  NSA_CHECK(index >= 0 && index < num_elements()) << index << " of " << view_.ToString();
  switch (view_.dtype()) {
    case DType::kF32:
      data<float>()[index] = static_cast<float>(value);
      return;
    case DType::kBF16:
      data<BFloat16>()[index] = BFloat16(static_cast<float>(value));
      return;
    case DType::kI32:
      data<int32_t>()[index] = static_cast<int32_t>(value);
      return;
    case DType::kF16:
      data<Float16>()[index] = Float16(static_cast<float>(value));
      return;
    case DType::kU8:
      NSA_CHECK(false) << "no conversion to " << DTypeName(view_.dtype());
  }
}

void Tensor::Fill(double value) {
  for (int64_t i = 0; i < num_elements(); ++i) Set(i, value);
}

std::vector<uint8_t> Tensor::Bytes() const {
  return {storage_.get(), storage_.get() + view_.num_bytes()};
}

Tensor RandomTensor(DType dtype, std::initializer_list<int64_t> shape, std::mt19937& random,
                    double deviation) {
  Tensor tensor(dtype, shape);
  std::normal_distribution<double> normal(0, deviation);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.Set(i, normal(random));
  return tensor;
}

Tensor Converted(const Tensor& from, DType dtype) {
  const TensorView& view = from.view();
  Tensor to = view.rank() == 1   ? Tensor(dtype, {view.dim(0)})
              : view.rank() == 2 ? Tensor(dtype, {view.dim(0), view.dim(1)})
              : view.rank() == 3
                  ? Tensor(dtype, {view.dim(0), view.dim(1), view.dim(2)})
                  : Tensor(dtype, {view.dim(0), view.dim(1), view.dim(2), view.dim(3)});
  for (int64_t i = 0; i < from.num_elements(); ++i) to.Set(i, from.At(i));
  return to;
}

Tensor I32Tensor(const std::vector<int32_t>& values) {
  Tensor tensor(DType::kI32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), tensor.data<int32_t>());
  return tensor;
}

}  // namespace nsa::testing
