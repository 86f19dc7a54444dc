#pragma once
// Model: weights and the forward pass from token ids to logits. One file per architecture makes one
// (registry.h).

#include <cstdint>
#include <memory>

#include "base/tensor_view.h"
#include "engine/attention/attention.h"
#include "engine/cache/kv_cache.h"
#include "engine/config.h"
#include "engine/runtime/workspace.h"
#include "kernels/device.h"

namespace nsa {

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const Attention& attention() const = 0;
  // Runs the step's tokens through all layers; logits for the tokens that `logit_tokens` names.
  struct ForwardArgs {
    TensorView token_ids;  // [T] i32
    StepView step;
    TensorView logit_tokens;  // [N] i32
    TensorView logits;        // out: [N, vocab] f32
  };
  virtual void Forward(const ForwardArgs& args, KvCache& cache, Workspace& workspace,
                       const Stream& stream) const = 0;
  // Bytes of workspace that Forward takes at most in a step of this extent.
  virtual int64_t WorkspaceBytes(const StepExtent& extent, const Stream& stream) const = 0;
  virtual int64_t weight_bytes() const = 0;
};

}  // namespace nsa
