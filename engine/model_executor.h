#pragma once
// ModelExecutor: the Executor over a real model. Owns the model, its caches and activations; all of
// it is sized when it is made. On a GPU it runs one step ahead, and steps that only decode are
// replayed as recorded graphs.

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache/kv_cache.h"
#include "engine/executor.h"
#include "engine/memory_plan.h"
#include "engine/model/model.h"
#include "engine/runtime/device.h"
#include "engine/runtime/memory.h"
#include "engine/runtime/workspace.h"
#include "engine/step_memory.h"

namespace nsa {

class ModelExecutor : public Executor {
 public:
  // The model's weights are on `device`, which is shared with whoever holds memory on it.
  // INVALID_ARGUMENT: an option out of range, or kv_cache_bytes below the recent pages and one page
  // (both numbers are in the message). RESOURCE_EXHAUSTED: more memory than the device has (free).
  static absl::StatusOr<std::unique_ptr<ModelExecutor>> Make(std::unique_ptr<Model> model,
                                                             std::shared_ptr<Device> device,
                                                             const ExecutorOptions& options);

  const ExecutorLimits& limits() const override { return limits_; }
  int max_steps_ahead() const override { return on_gpu() ? 1 : 0; }
  // A batch beyond the limits is a programmer error.
  void Launch(const Batch& batch) override;
  void LaunchSampling(const RowEdits& edits) override;
  // A row whose logits are not all finite comes back with finite = false; the other rows are not
  // affected. INTERNAL: the GPU failed, and is lost.
  absl::StatusOr<std::vector<SampledToken>> Collect() override;
  bool is_lost() const override { return is_lost_; }
  KvTraffic DecodeTraffic(int64_t num_tokens) const override;

  // The forward pass of a step without sampling, with nothing in flight: logits of
  // batch.logit_tokens, [num_rows, vocab] f32 in the device's memory, valid until the next call.
  TensorView ForwardLogits(const Batch& batch);

  const Model& model() const { return *model_; }
  Device& device() { return *device_; }
  // The caches themselves, for a benchmark that fills them without running the model.
  KvCache& cache() { return cache_; }
  int64_t kv_cache_bytes() const;   // of all pages
  int64_t workspace_bytes() const;  // of activations and step buffers on the device
  int64_t num_graphs() const { return static_cast<int64_t>(graphs_.size()); }

 private:
  // A step in flight: its host memory, and what of its outputs is wanted.
  struct Flight {
    int mark = 0;
    StepShape shape;
    bool awaits_edits = false;  // LaunchSampling is to come
    int64_t num_output_bytes = 0;
    std::vector<int32_t> num_top_logprobs;  // by row
    std::vector<int32_t> traced_rows;
  };
  // One of the two sets of host memory that steps use in turn.
  struct HostBlocks {
    std::optional<PinnedBuffer> inputs, edits, outputs;
  };
  // Of a recorded step: tokens, page table columns, whether sampling is part of it.
  using GraphKey = std::tuple<int64_t, int64_t, bool>;

  ModelExecutor(std::unique_ptr<Model> model, std::shared_ptr<Device> device,
                const ExecutorOptions& options, const MemoryPlan& plan);

  bool on_gpu() const { return device_->type() == DeviceType::kCuda; }
  void CheckBatch(const Batch& batch) const;
  bool IsRecordable(const Batch& batch) const;
  StepShape PaddedShape(const Batch& batch) const;
  void CopyPages(const Batch& batch);
  Flight FlightOf(const Batch& batch, const StepShape& shape);
  StepInputs Upload(const Batch& batch, const StepShape& shape, int mark);
  LogitEdits FillEdits(const RowEdits& edits, int mark);
  void EnqueueRecorded(const StepInputs& inputs);
  void EnqueueForward(const StepInputs& inputs, bool takes_pending_tokens);
  void EnqueueSampling(const StepInputs& inputs, const LogitEdits& edits);
  void EnqueueDownload(const Flight& flight);
  TensorView LogitsOf(const StepInputs& inputs) const;
  TensorView Forward(const StepInputs& inputs);

  const std::shared_ptr<Device> device_;  // first: the others hold its memory
  std::unique_ptr<Model> model_;
  const ExecutorLimits limits_;
  const OutputExtent output_extent_;
  const bool record_graphs_;
  KvCache cache_;
  Workspace workspace_;
  DeviceBuffer logits_;         // [max_rows, vocab] f32
  DeviceBuffer edited_logits_;  // [max_num_seqs, vocab] f32
  DeviceBuffer input_block_, output_block_;
  const StepOutputs outputs_;  // in output_block_
  std::array<HostBlocks, Device::kNumMarks> host_blocks_;
  std::deque<Flight> in_flight_;  // oldest first
  int64_t num_launched_ = 0;
  bool is_lost_ = false;
  std::map<GraphKey, std::unique_ptr<StepGraph>> graphs_;  // null: ran once, not yet recorded
};

}  // namespace nsa
