#include "engine/model/weight_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

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

WeightStore::WeightStore(Weights* weights, DType activation, Device* device)
    : weights_(weights), activation_(activation), device_(device), uploader_(device) {}

void* WeightStore::Allocate(int64_t num_bytes) {
  num_bytes_ += num_bytes;
  return buffers_.emplace_back(num_bytes, device_).data();
}

PackedWeight WeightStore::TakePacked(const std::vector<Part>& parts, int64_t num_inputs) {
  std::vector<TensorView> views;
  PackedWeight packed{.num_inputs = num_inputs};
  for (const Part& part : parts) {
    views.push_back(weights_->Take(part.name, {part.num_outputs, num_inputs}));
    packed.num_outputs += part.num_outputs;
  }
  if (on_gpu()) {
    UploadParts(parts, views, packed);
  } else {
    PackParts(parts, views, packed);
  }
  return packed;
}

void WeightStore::PackParts(const std::vector<Part>& parts, const std::vector<TensorView>& views,
                            PackedWeight& packed) {
  const bool is_bf16 = std::all_of(views.begin(), views.end(), [](const TensorView& view) {
    return view.empty() || view.dtype() == DType::kBF16;
  });
  const DType dtype = is_bf16 ? DType::kBF16 : DType::kF32;
  const int64_t num_bytes = PackedWeightBytes(packed.num_outputs, packed.num_inputs, dtype);
  packed.data = TensorView(Allocate(num_bytes), dtype, {num_bytes / DTypeBytes(dtype)});
  int64_t first_output = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!views[i].empty()) PackWeight(views[i], first_output, packed);
    first_output += parts[i].num_outputs;
  }
}

void WeightStore::UploadParts(const std::vector<Part>& parts, const std::vector<TensorView>& views,
                              PackedWeight& packed) {
  const int64_t row_bytes = packed.num_inputs * DTypeBytes(activation_);
  packed.data = TensorView(Allocate(packed.num_outputs * row_bytes), activation_,
                           {packed.num_outputs, packed.num_inputs});
  auto* to = static_cast<uint8_t*>(packed.data.raw());
  for (size_t i = 0; i < parts.size(); ++i) {
    const TensorView& view = views[i];
    if (!view.empty() && view.dtype() != activation_) {
      unsupported_.Update(absl::InvalidArgumentError(absl::StrCat(
          "'", parts[i].name, "' holds ", std::string(DTypeName(view.dtype())), ", the embedding ",
          std::string(DTypeName(activation_)), "; on a GPU all matrices must have one dtype")));
    } else if (!view.empty()) {
      uploader_.Copy(view.raw(), to, view.num_bytes());
    }
    to += parts[i].num_outputs * row_bytes;
  }
}

TensorView WeightStore::TakeAs(DType dtype, const std::string& name,
                               const std::vector<int64_t>& shape) {
  const TensorView stored = weights_->Take(name, shape);
  if (stored.empty()) return {};
  const int64_t num_bytes = stored.num_elements() * DTypeBytes(dtype);
  const TensorView kept = WithData(stored, Allocate(num_bytes), dtype);
  if (!on_gpu()) {
    Convert(stored, kept);
    return kept;
  }
  std::vector<uint8_t> converted(num_bytes);
  Convert(stored, WithData(stored, converted.data(), dtype));
  uploader_.Copy(converted.data(), kept.raw(), num_bytes);
  return kept;
}

TensorView WeightStore::TakeF32(const std::string& name, const std::vector<int64_t>& shape) {
  return TakeAs(DType::kF32, name, shape);
}

TensorView WeightStore::TakeActivation(const std::string& name, const std::vector<int64_t>& shape) {
  return TakeAs(activation_, name, shape);
}

absl::Status WeightStore::Finish(const std::vector<std::string>& ignorable) {
  NSA_RETURN_IF_ERROR(std::exchange(weights_, nullptr)->Finish(ignorable));
  NSA_RETURN_IF_ERROR(unsupported_);
  return uploader_.Finish();
}

}  // namespace nsa
