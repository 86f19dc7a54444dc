#include "engine/model/weight_store.h"

#include <algorithm>
#include <utility>

namespace nsa {
namespace {

// Calls f.template operator()<T>() with the type of a weight's elements.
template <typename F>
void DispatchWeight(DType dtype, F&& f) {
  if (dtype == DType::kF16) return f.template operator()<Float16>();
  DispatchFloat(dtype, f);
}

void Convert(const TensorView& from, const TensorView& to) {
  DispatchWeight(from.dtype(), [&]<typename From>() {
    DispatchWeight(to.dtype(), [&]<typename To>() {
      const From* values = from.data<From>();
      std::transform(values, values + from.num_elements(), to.data<To>(),
                     [](From value) { return static_cast<To>(static_cast<float>(value)); });
    });
  });
}

// The same shape over other memory.
TensorView WithData(const TensorView& shape, void* data, DType dtype) {
  switch (shape.rank()) {
    case 1:
      return {data, dtype, {shape.dim(0)}};
    case 2:
      return {data, dtype, {shape.dim(0), shape.dim(1)}};
    case 3:
      return {data, dtype, {shape.dim(0), shape.dim(1), shape.dim(2)}};
    default:
      return {data, dtype, {shape.dim(0), shape.dim(1), shape.dim(2), shape.dim(3)}};
  }
}

}  // namespace

void* WeightStore::Allocate(int64_t num_bytes) {
  num_bytes_ += num_bytes;
  return buffers_.emplace_back(num_bytes).data();
}

PackedWeight WeightStore::TakePacked(const std::vector<Part>& parts, int64_t num_inputs) {
  std::vector<TensorView> views;
  PackedWeight packed{.num_inputs = num_inputs};
  DType dtype = DType::kBF16;
  for (const Part& part : parts) {
    views.push_back(weights_->Take(part.name, {part.num_outputs, num_inputs}));
    packed.num_outputs += part.num_outputs;
    if (!views.back().empty() && views.back().dtype() != DType::kBF16) dtype = DType::kF32;
  }
  const int64_t num_bytes = PackedWeightBytes(packed.num_outputs, num_inputs, dtype);
  packed.data = TensorView(Allocate(num_bytes), dtype, {num_bytes / DTypeBytes(dtype)});
  int64_t first_output = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!views[i].empty()) PackWeight(views[i], first_output, packed);
    first_output += parts[i].num_outputs;
  }
  return packed;
}

TensorView WeightStore::TakeAs(DType dtype, const std::string& name,
                               const std::vector<int64_t>& shape) {
  const TensorView stored = weights_->Take(name, shape);
  if (stored.empty()) return {};
  const TensorView converted =
      WithData(stored, Allocate(stored.num_elements() * DTypeBytes(dtype)), dtype);
  Convert(stored, converted);
  return converted;
}

TensorView WeightStore::TakeF32(const std::string& name, const std::vector<int64_t>& shape) {
  return TakeAs(DType::kF32, name, shape);
}

TensorView WeightStore::TakeActivation(const std::string& name, const std::vector<int64_t>& shape) {
  return TakeAs(activation_, name, shape);
}

absl::Status WeightStore::Finish(const std::vector<std::string>& ignorable) {
  return std::exchange(weights_, nullptr)->Finish(ignorable);
}

}  // namespace nsa
