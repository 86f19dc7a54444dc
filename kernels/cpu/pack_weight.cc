#include <algorithm>

#include "kernels/transformer.h"

namespace nsa {
namespace {

template <typename From, typename To>
void PackRows(const TensorView& weight, int64_t first_output, PackedWeight& packed) {
  const int64_t num_inputs = packed.num_inputs;
  for (int64_t row = 0; row < weight.dim(0); ++row) {
    const From* from = weight.data<From>() + row * num_inputs;
    To* to = packed.data.data<To>() + PackedIndex(packed, first_output + row, 0);
    for (int64_t i = 0; i < num_inputs; ++i) {
      to[i * kPanelOutputs] = static_cast<To>(static_cast<float>(from[i]));
    }
  }
}

// The lanes of the last panel that hold no output.
template <typename To>
void ZeroPadding(PackedWeight& packed) {
  const int64_t used = packed.num_outputs % kPanelOutputs;
  if (used == 0) return;
  To* panel = packed.data.data<To>() + PackedIndex(packed, packed.num_outputs - used, 0);
  for (int64_t i = 0; i < packed.num_inputs; ++i) {
    std::fill(panel + i * kPanelOutputs + used, panel + (i + 1) * kPanelOutputs, To(0.0F));
  }
}

}  // namespace

int64_t PackedWeightBytes(int64_t num_outputs, int64_t num_inputs, DType dtype) {
  const int64_t num_panels = (num_outputs + kPanelOutputs - 1) / kPanelOutputs;
  return num_panels * kPanelOutputs * num_inputs * DTypeBytes(dtype);
}

void PackWeight(const TensorView& weight, int64_t first_output, PackedWeight& packed) {
  NSA_CHECK_SHAPE(weight, {-1, packed.num_inputs});
  NSA_CHECK(first_output >= 0 && first_output + weight.dim(0) <= packed.num_outputs)
      << "outputs " << first_output << "+" << weight.dim(0) << " of " << packed.num_outputs;
  NSA_CHECK_EQ(packed.data.num_bytes(),
               PackedWeightBytes(packed.num_outputs, packed.num_inputs, packed.data.dtype()));
  DispatchFloat(packed.data.dtype(), [&]<typename To>() {
    if (weight.dtype() == DType::kF16) {
      PackRows<Float16, To>(weight, first_output, packed);
    } else {
      DispatchFloat(weight.dtype(),
                    [&]<typename From>() { PackRows<From, To>(weight, first_output, packed); });
    }
    if (first_output + weight.dim(0) == packed.num_outputs) ZeroPadding<To>(packed);
  });
}

}  // namespace nsa
