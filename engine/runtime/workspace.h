#pragma once
// Workspace: a bump arena for a step's activations, sized at start-up.

#include <cstdint>
#include <initializer_list>

#include "base/tensor_view.h"
#include "engine/runtime/memory.h"

namespace nsa {

class Workspace {
 public:
  // `device` must outlive the workspace; null: the host.
  explicit Workspace(int64_t num_bytes, Device* device = nullptr) : memory_(num_bytes, device) {}

  // A 64-byte-aligned tensor with undefined contents, valid until the enclosing Scope ends.
  // Running out is a programmer error: the size was computed for the largest step.
  TensorView Take(DType dtype, std::initializer_list<int64_t> shape);
  // Bytes that Take uses for a tensor of this many bytes.
  static int64_t Rounded(int64_t num_bytes) { return (num_bytes + 63) / 64 * 64; }

  int64_t used_bytes() const { return used_bytes_; }
  int64_t capacity_bytes() const { return memory_.num_bytes(); }

  // Gives back, when it ends, everything taken since it began.
  class Scope {
   public:
    explicit Scope(Workspace& workspace) : workspace_(workspace), mark_(workspace.used_bytes_) {}
    ~Scope() { workspace_.used_bytes_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& workspace_;
    int64_t mark_;
  };

 private:
  DeviceBuffer memory_;
  int64_t used_bytes_ = 0;
};

}  // namespace nsa
