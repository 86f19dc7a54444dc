#pragma once
// WeightStore: owns a model's weights in the form in which kernels read them.

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_view.h"
#include "engine/loader/weights.h"
#include "engine/runtime/memory.h"
#include "kernels/transformer.h"

namespace nsa {

class WeightStore {
 public:
  // Takes from `weights` until Finish. `activation` is the model's activation dtype.
  WeightStore(Weights* weights, DType activation) : weights_(weights), activation_(activation) {}

  // Matrices [num_outputs, num_inputs] that are multiplied with the same vector.
  struct Part {
    std::string name;
    int64_t num_outputs = 0;
  };
  // The parts below one another in one packed matrix: bf16 if all of them are, else f32 (f16 would
  // lose bits in bf16). Missing parts leave their rows undefined; Weights::Finish reports them.
  PackedWeight TakePacked(const std::vector<Part>& parts, int64_t num_inputs);
  // A tensor converted to f32, in its own shape of at most 4 axes.
  TensorView TakeF32(const std::string& name, const std::vector<int64_t>& shape);
  // Likewise, converted to the activation dtype.
  TensorView TakeActivation(const std::string& name, const std::vector<int64_t>& shape);

  // Weights::Finish; afterwards the weights may go.
  absl::Status Finish(const std::vector<std::string>& ignorable);

  int64_t num_bytes() const { return num_bytes_; }

 private:
  void* Allocate(int64_t num_bytes);
  TensorView TakeAs(DType dtype, const std::string& name, const std::vector<int64_t>& shape);

  Weights* weights_;
  DType activation_;
  std::vector<DeviceBuffer> buffers_;
  int64_t num_bytes_ = 0;
};

}  // namespace nsa
