#pragma once
// ModelExecutor: the Executor over a real model. Owns the model, its caches, activations and
// threads; all of it is sized when it is made.

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "engine/cache/kv_cache.h"
#include "engine/executor.h"
#include "engine/model/model.h"
#include "engine/runtime/memory.h"
#include "engine/runtime/workspace.h"

namespace nsa {

struct ExecutorOptions {
  int64_t kv_cache_bytes = 0;  // pages and slots together
  int64_t max_num_seqs = 16;   // sequences in the cache at once (slots), and per step
  int64_t max_chunk_tokens =
      256;  // tokens of one sequence per step; the model was made with as many
  int64_t max_batched_tokens = 512;  // tokens of all sequences per step
  int num_threads = 1;
};

// What Make asks of the options alone, before there is a model. The errors name the server's flags.
absl::Status CheckExecutorOptions(const ExecutorOptions& options);

class ModelExecutor : public Executor {
 public:
  // INVALID_ARGUMENT: an option out of range, or kv_cache_bytes below the slots and one page (both
  // numbers are in the message). RESOURCE_EXHAUSTED: kv_cache_bytes beyond the device's memory.
  static absl::StatusOr<std::unique_ptr<ModelExecutor>> Make(std::unique_ptr<Model> model,
                                                             const ExecutorOptions& options);

  const ExecutorLimits& limits() const override { return limits_; }
  // A batch beyond the limits is a programmer error. A row whose logits are not all finite comes
  // back with finite = false; the other rows are not affected.
  absl::StatusOr<std::vector<SampledToken>> Execute(const Batch& batch) override;
  KvTraffic DecodeTraffic(int64_t num_tokens) const override;

  // The forward pass of Execute without sampling: logits of batch.logit_tokens, [num_rows, vocab]
  // f32, valid until the next call.
  TensorView ForwardLogits(const Batch& batch);

  const Model& model() const { return *model_; }
  // The caches themselves, for a benchmark that fills them without running the model.
  KvCache& cache() { return cache_; }
  int64_t num_threads() const { return threads_.num_threads(); }
  int64_t kv_cache_bytes() const;   // of the pages and slots taken
  int64_t workspace_bytes() const;  // of activations and step buffers

 private:
  ModelExecutor(std::unique_ptr<Model> model, const ExecutorOptions& options, int64_t num_pages);

  // One step's inputs and outputs in device memory, each as large as the largest step needs.
  struct StepBuffers {
    TensorView token_ids, token_sequence, token_position;  // [max_batched_tokens] i32
    TensorView tiles;                                      // [max_batched_tokens, 4] i32
    TensorView page_table;                                 // [max_num_seqs * num_pages] i32
    TensorView slots;                                      // [max_num_seqs] i32
    TensorView logit_tokens;                               // [max_num_seqs] i32
    TensorView logits;                                     // [max_num_seqs, vocab] f32
    TensorView tokens, logprobs;                           // [max_num_seqs] i32, f32
    TensorView top_tokens, top_logprobs;  // [max_num_seqs, kMaxTopLogprobs] i32, f32
  };
  StepBuffers TakeBuffers();
  int64_t BufferBytes() const;
  void CheckBatch(const Batch& batch) const;
  StepView Upload(const Batch& batch, const Stream& stream);
  std::vector<SampledToken> Sample(const Batch& batch, const TensorView& logits,
                                   const Stream& stream);
  Stream stream() { return {.device = DeviceType::kCpu, .threads = &threads_}; }

  std::unique_ptr<Model> model_;
  ExecutorLimits limits_;
  ThreadPool threads_;
  KvCache cache_;
  Workspace workspace_;
  Workspace buffer_memory_;
  StepBuffers buffers_;
};

}  // namespace nsa
