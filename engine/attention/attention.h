#pragma once
// The interface of an attention variant: what it caches, and one layer's forward pass over a step's
// tokens.

#include <cstdint>
#include <memory>

#include "base/tensor_view.h"
#include "engine/cache/cache_spec.h"
#include "engine/cache/kv_cache.h"
#include "engine/config.h"
#include "engine/request.h"
#include "engine/runtime/workspace.h"
#include "kernels/device.h"
#include "kernels/nsa.h"

namespace nsa {

// Where each projection of a layer's packed q|k|v|gates matrix begins, in output columns.
struct ProjectionColumns {
  struct Kv {
    int64_t k = 0, v = 0;
  };
  int64_t q = 0;
  Kv sel;       // the only stream with shared KV
  Kv cmp, win;  // separate KV only
  int64_t gates = 0;
  int64_t num_columns = 0;
};

// What a layer's projections hand to its attention.
struct AttentionInputs {
  TensorView packed;  // [T, columns.num_columns] activation dtype, before RoPE
  const ProjectionColumns& columns;
  const PhiWeights* phi_k = nullptr;  // this layer's; null where the variant compresses nothing
  const PhiWeights* phi_v = nullptr;
  TensorView out;  // out: [T, H, d_v] activation dtype
};

// One step's batch, seen by every layer; filled once per step (device memory on a GPU).
struct StepView {
  TokenMap tokens;
  TensorView page_table;    // [num_seqs, max_pages] i32
  TensorView recent_table;  // [num_seqs, recent_columns] i32: page p is in column p % columns
  int64_t max_pages = 0;
  // The tokens whose choice of blocks is wanted, and where it goes; empty views: none.
  TensorView traced_tokens;  // [N] i32, indices of packed tokens
  TensorView traced_blocks;  // out: [layers, at least N, Attention::num_traced_blocks()] i32
};

// How large a step may be.
struct StepExtent {
  int64_t num_tokens = 0;
  int64_t num_rows = 0;  // of logits
  int64_t num_seqs = 0;
  int64_t max_pages = 0;  // of one sequence
};

// RopeFrequencies of the config in the device's memory.
DeviceBuffer RopeFrequenciesOn(const ModelConfig& config, Device* device);

class Attention {
 public:
  virtual ~Attention() = default;
  virtual const CacheSpec& cache_spec() const = 0;
  // Stores the step's K and V of this layer, then attends. Scratch comes from `workspace`, given
  // back on return.
  virtual void Forward(int64_t layer, const StepView& step, const AttentionInputs& inputs,
                       KvCache& cache, Workspace& workspace, const Stream& stream) const = 0;
  // Bytes of scratch that Forward takes at most in a step of this extent.
  virtual int64_t WorkspaceBytes(const StepExtent& extent, const Stream& stream) const = 0;
  // Indices of blocks that Forward writes to step.traced_blocks per token and layer; 0: the variant
  // chooses no blocks.
  virtual int64_t num_traced_blocks() const { return 0; }
  // As Executor::DecodeTraffic: what one sequence's decode step loads with num_tokens in the cache.
  virtual KvTraffic DecodeTraffic(int64_t num_tokens) const = 0;
};

}  // namespace nsa
