#pragma once
// How an executor divides memory: what its options ask for, what the largest step needs and what is
// left for the caches.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/executor.h"
#include "engine/model/model.h"
#include "engine/runtime/device.h"
#include "engine/step_memory.h"

namespace nsa {

struct ExecutorOptions {
  int64_t kv_cache_bytes = 0;        // both kinds of pages; 0, on a GPU only: what is left of
  double memory_utilization = 0.9;   // this part of its memory beside weights and activations
  int64_t max_num_seqs = 16;         // sequences in the cache at once, and per step
  int64_t max_chunk_tokens = 256;    // tokens of one sequence per step
  int64_t max_batched_tokens = 512;  // tokens of all sequences per step
  int64_t max_seq_tokens = 0;        // of one sequence in the cache; 0: the model's longest
  bool record_graphs = true;         // on a GPU: whether decode steps are replayed
  bool share_prefixes = true;        // whether prompts begin in what is cached of others
};

// What Make asks of the options alone, before there is a model. The errors name the server's flags.
absl::Status CheckExecutorOptions(const ExecutorOptions& options, const Device& device);

struct MemoryPlan {
  ExecutorLimits limits;
  int64_t workspace_bytes = 0;
  int64_t input_bytes = 0;  // of the largest step
  int64_t edit_bytes = 0;   // of the largest step, in host memory
  OutputExtent outputs;

  // Of the largest step's logits, inputs and outputs on the device.
  int64_t step_bytes() const;
};

// The plan of an executor of the model, whose weights are on the device already. Errors as
// ModelExecutor::Make.
absl::StatusOr<MemoryPlan> PlanMemory(const Model& model, Device& device,
                                      const ExecutorOptions& options);

}  // namespace nsa
