#include "engine/model/weight_store.h"

#include <algorithm>
#include <utility>

namespace nsa {
namespace {

template <typename T>
void ConvertTo(const TensorView& from, float* to) {
  const T* values = from.data<T>();
  std::transform(values, values + from.num_elements(), to,
                 [](T value) { return static_cast<float>(value); });
}

void ToF32(const TensorView& from, float* to) {
  if (from.dtype() == DType::kF16) return ConvertTo<Float16>(from, to);
  DispatchFloat(from.dtype(), [&]<typename T>() { ConvertTo<T>(from, to); });
}

// The same shape over other memory.
TensorView WithData(const TensorView& shape, float* data) {
  switch (shape.rank()) {
    case 1:
      return {data, DType::kF32, {shape.dim(0)}};
    case 2:
      return {data, DType::kF32, {shape.dim(0), shape.dim(1)}};
    case 3:
      return {data, DType::kF32, {shape.dim(0), shape.dim(1), shape.dim(2)}};
    default:
      return {data, DType::kF32, {shape.dim(0), shape.dim(1), shape.dim(2), shape.dim(3)}};
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

TensorView WeightStore::TakeF32(const std::string& name, const std::vector<int64_t>& shape) {
  const TensorView stored = weights_->Take(name, shape);
  if (stored.empty()) return {};
  auto* data = static_cast<float*>(Allocate(stored.num_elements() * DTypeBytes(DType::kF32)));
  ToF32(stored, data);
  return WithData(stored, data);
}

absl::Status WeightStore::Finish(const std::vector<std::string>& ignorable) {
  return std::exchange(weights_, nullptr)->Finish(ignorable);
}

}  // namespace nsa
