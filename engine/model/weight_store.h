#pragma once
// WeightStore: owns a model's weights on its device, in the form in which kernels read them.

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_view.h"
#include "engine/loader/weights.h"
#include "engine/runtime/memory.h"
#include "engine/runtime/uploader.h"
#include "kernels/transformer.h"

namespace nsa {

class WeightStore {
 public:
  // Takes from `weights` until Finish. `activation` is the model's activation dtype. `device` must
  // outlive the store; null: the host.
  WeightStore(Weights* weights, DType activation, Device* device = nullptr);

  // Matrices [num_outputs, num_inputs] that are multiplied with the same vector.
  struct Part {
    std::string name;
    int64_t num_outputs = 0;
  };
  // The parts below one another in one packed matrix. On the CPU: bf16 if all of them are, else f32
  // (f16 would lose bits in bf16). On a GPU: as they are stored, which must be the activation
  // dtype. Missing parts leave their rows undefined; Finish reports them.
  PackedWeight TakePacked(const std::vector<Part>& parts, int64_t num_inputs);
  // A tensor converted to f32, in its own shape of at most 4 axes.
  TensorView TakeF32(const std::string& name, const std::vector<int64_t>& shape);
  // Likewise, converted to the activation dtype.
  TensorView TakeActivation(const std::string& name, const std::vector<int64_t>& shape);

  // Weights::Finish, and INVALID_ARGUMENT: a matrix for a GPU that is not of the activation dtype.
  // Afterwards the weights may go.
  absl::Status Finish(const std::vector<std::string>& ignorable);

  int64_t num_bytes() const { return num_bytes_; }

 private:
  bool on_gpu() const { return device_ != nullptr && device_->type() == DeviceType::kCuda; }
  void* Allocate(int64_t num_bytes);
  void UploadParts(const std::vector<Part>& parts, const std::vector<TensorView>& views,
                   PackedWeight& packed);
  void PackParts(const std::vector<Part>& parts, const std::vector<TensorView>& views,
                 PackedWeight& packed);
  TensorView TakeAs(DType dtype, const std::string& name, const std::vector<int64_t>& shape);

  Weights* weights_;
  DType activation_;
  Device* device_;
  Uploader uploader_;
  absl::Status unsupported_;  // the first matrix that this device cannot take
  std::vector<DeviceBuffer> buffers_;
  int64_t num_bytes_ = 0;
};

}  // namespace nsa
