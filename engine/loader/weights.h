#pragma once
// Weights: a model folder's tensors by name. An architecture takes each tensor that it knows with
// the shape it expects; what is missing, misshapen or left over is collected and refused at once.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/tensor_view.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/safetensors.h"

namespace nsa {

class Weights {
 public:
  // Maps `folder`/model.safetensors, or the shards of `folder`/model.safetensors.index.json.
  static absl::StatusOr<Weights> Open(const std::string& folder);

  // The tensor `name`, as stored (f32, bf16 or f16), valid as long as this object. An empty view,
  // and a note for Finish, if it is missing or has another shape or an integer dtype.
  TensorView Take(const std::string& name, const std::vector<int64_t>& shape);
  // The shape (empty) and dtype (nothing) of `name` (if there is none). Neither counts as taking
  // it.
  std::vector<int64_t> ShapeOf(const std::string& name) const;
  std::optional<DType> DTypeOf(const std::string& name) const;

  // OK if every Take succeeded and every tensor was taken or its name ends in one of `ignorable`.
  // Otherwise INVALID_ARGUMENT lists what is wrong, the first few by name.
  absl::Status Finish(const std::vector<std::string>& ignorable) const;

  int64_t num_bytes() const;

 private:
  Weights() = default;
  absl::Status OpenShards(const std::string& folder, const MappedFile& index);
  absl::Status AddFile(const std::string& path);
  TensorView View(const SafetensorsEntry& entry);

  struct Tensor {
    SafetensorsEntry entry;
    bool taken = false;
  };
  std::vector<MappedFile> files_;
  std::map<std::string, Tensor> tensors_;
  std::vector<std::unique_ptr<float[]>> realigned_;  // copies of tensors that a file misaligns
  std::vector<std::string> problems_;
};

}  // namespace nsa
