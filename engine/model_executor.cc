#include "engine/model_executor.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "kernels/pending_tokens.h"

namespace nsa {
namespace {

// Sizes for which a step's kernels are recorded: few, so that graphs are few, and close enough that
// padding costs little.
int64_t PaddedTokens(int64_t num_tokens, int64_t max_tokens) {
  constexpr int64_t kStep = 8;
  int64_t padded = 1;
  while (padded < num_tokens && padded < kStep) padded *= 2;
  if (padded < num_tokens) padded = (num_tokens + kStep - 1) / kStep * kStep;
  return std::min(padded, max_tokens);
}

int64_t PaddedPages(int64_t num_pages, int64_t max_pages) {
  int64_t padded = 16;
  while (padded < num_pages) padded *= 2;
  return std::min(padded, max_pages);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelExecutor>> ModelExecutor::Make(std::unique_ptr<Model> model,
                                                                   std::shared_ptr<Device> device,
                                                                   const ExecutorOptions& options) {
  NSA_RETURN_IF_ERROR(CheckExecutorOptions(options, *device));
  NSA_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(*model, *device, options));
  return std::unique_ptr<ModelExecutor>(
      new ModelExecutor(std::move(model), std::move(device), options, plan));
}

ModelExecutor::ModelExecutor(std::unique_ptr<Model> model, std::shared_ptr<Device> device,
                             const ExecutorOptions& options, const MemoryPlan& plan)
    : device_(std::move(device)),
      model_(std::move(model)),
      limits_(plan.limits),
      output_extent_(plan.outputs),
      record_graphs_(options.record_graphs && device_->CanRecord()),
      cache_(model_->attention().cache_spec(), limits_.num_pages, limits_.num_recent_pages,
             device_.get()),
      workspace_(plan.workspace_bytes, device_.get()),
      logits_(limits_.max_rows() * limits_.vocab_size * DTypeBytes(DType::kF32), device_.get()),
      edited_logits_(limits_.max_num_seqs * limits_.vocab_size * DTypeBytes(DType::kF32),
                     device_.get()),
      input_block_(plan.input_bytes, device_.get()),
      output_block_(StepOutputs::BytesOf(plan.outputs), device_.get()),
      outputs_(output_block_.data(), plan.outputs) {
  for (HostBlocks& blocks : host_blocks_) {
    blocks.inputs.emplace(input_block_.num_bytes(), device_.get());
    blocks.edits.emplace(plan.edit_bytes, device_.get());
    blocks.outputs.emplace(output_block_.num_bytes(), device_.get());
  }
}

void ModelExecutor::CheckBatch(const Batch& batch) const {
  NSA_CHECK_LE(batch.num_tokens(), limits_.max_batched_tokens);
  NSA_CHECK_LE(batch.num_seqs, limits_.max_num_seqs);
  NSA_CHECK_LE(batch.num_rows(), limits_.max_rows());
  NSA_CHECK_LE(batch.num_edited_rows, limits_.max_num_seqs);
  NSA_CHECK_LE(batch.num_traced(), limits_.max_num_seqs);
  NSA_CHECK_LE(batch.max_pages, limits_.max_seq_pages);
  NSA_CHECK_EQ(static_cast<int64_t>(batch.token_sequence.size()), batch.num_tokens());
  NSA_CHECK_EQ(static_cast<int64_t>(batch.token_position.size()), batch.num_tokens());
  NSA_CHECK_EQ(static_cast<int64_t>(batch.page_table.size()), batch.num_seqs * batch.max_pages);
  NSA_CHECK_EQ(batch.recent_columns, limits_.recent_columns());
  NSA_CHECK_EQ(static_cast<int64_t>(batch.recent_table.size()),
               batch.num_seqs * batch.recent_columns);
  for (int32_t page : batch.page_table) NSA_CHECK(page >= -1 && page < limits_.num_pages) << page;
  for (int32_t page : batch.recent_table) {
    NSA_CHECK(page >= -1 && page < limits_.num_recent_pages) << page;
  }
  for (const SampleRow& row : batch.rows) NSA_CHECK_LE(row.num_top_logprobs, kMaxTopLogprobs);
  std::vector<int64_t> seq_tokens(batch.num_seqs);
  for (int32_t sequence : batch.token_sequence) {
    NSA_CHECK(sequence >= 0 && sequence < batch.num_seqs) << sequence;
    ++seq_tokens[sequence];
    NSA_CHECK_LE(seq_tokens[sequence], limits_.max_chunk_tokens);
  }
}

// Every token decodes and is sampled, so that the kernels of its forward pass depend on two numbers
// alone; without edits those of its sampling do, too.
bool ModelExecutor::IsRecordable(const Batch& batch) const {
  return record_graphs_ && batch.num_decode_tokens == batch.num_tokens() &&
         batch.num_rows() == batch.num_tokens() && batch.num_traced() == 0;
}

StepShape ModelExecutor::PaddedShape(const Batch& batch) const {
  const int64_t num_tokens = PaddedTokens(batch.num_tokens(), limits_.max_num_seqs);
  return {.num_tokens = num_tokens,
          .num_decode_tokens = num_tokens,
          .num_seqs = num_tokens,
          .num_rows = num_tokens,
          .max_pages = PaddedPages(batch.max_pages, limits_.max_seq_pages),
          .recent_columns = batch.recent_columns,
          .num_edited_rows = batch.num_edited_rows};
}

void ModelExecutor::CopyPages(const Batch& batch) {
  for (const auto& [from, to] : batch.page_copies) cache_.CopyPage(from, to);
  for (const auto& [from, to] : batch.recent_copies) cache_.CopyRecentPage(from, to);
}

// The inputs on the device, by way of the mark's host block.
StepInputs ModelExecutor::Upload(const Batch& batch, const StepShape& shape, int mark) {
  const PinnedBuffer& host_block = *host_blocks_[mark].inputs;
  const StepInputs host(host_block.data(), shape);
  NSA_CHECK_LE(host.num_bytes, host_block.num_bytes());
  host.Fill(batch);
  device_->Upload(host_block.data(), input_block_.data(), host.num_bytes);
  return {input_block_.data(), shape};
}

// In the mark's host block, where the device reads them: no copy delays the sampling.
LogitEdits ModelExecutor::FillEdits(const RowEdits& edits, int mark) {
  const PinnedBuffer& host_block = *host_blocks_[mark].edits;
  const StepEdits host(host_block.data(), {.num_rows = edits.num_rows(),
                                           .num_edits = std::ssize(edits.edits),
                                           .has_masks = !edits.masks.empty(),
                                           .vocab_size = limits_.vocab_size});
  NSA_CHECK_LE(host.num_bytes, host_block.num_bytes());
  host.Fill(edits);
  return host.views;
}

TensorView ModelExecutor::LogitsOf(const StepInputs& inputs) const {
  return {logits_.data(), DType::kF32, {inputs.shape.num_rows, limits_.vocab_size}};
}

TensorView ModelExecutor::Forward(const StepInputs& inputs) {
  const TensorView logits = LogitsOf(inputs);
  StepView step{.tokens = {.sequence = inputs.token_sequence,
                           .position = inputs.token_position,
                           .num_decode_tokens = inputs.shape.num_decode_tokens,
                           .tiles = inputs.tiles},
                .page_table = inputs.page_table,
                .recent_table = inputs.recent_table,
                .max_pages = inputs.shape.max_pages};
  if (inputs.shape.num_traced > 0) {
    step.traced_tokens = inputs.traced_tokens;
    step.traced_blocks = outputs_.traced_blocks;
  }
  model_->Forward({.token_ids = inputs.token_ids,
                   .step = step,
                   .logit_tokens = inputs.logit_tokens,
                   .logits = logits},
                  cache_, workspace_, device_->stream());
  return logits;
}

void ModelExecutor::EnqueueForward(const StepInputs& inputs, bool takes_pending_tokens) {
  if (takes_pending_tokens) {
    TakePendingTokens({.ids = inputs.token_ids, .sampled = outputs_.tokens}, device_->stream());
  }
  Forward(inputs);
}

void ModelExecutor::EnqueueSampling(const StepInputs& inputs, const LogitEdits& edits) {
  const int64_t num_rows = inputs.shape.num_rows;
  if (num_rows == 0) return;
  const TensorView edited_logits(edited_logits_.data(), DType::kF32,
                                 {inputs.shape.num_edited_rows, limits_.vocab_size});
  SampleTokens({.logits = LogitsOf(inputs),
                .rows = inputs.rows,
                .edits = edits,
                .edited_logits = edited_logits,
                .tokens = outputs_.tokens.Slice(0, num_rows),
                .logprobs = outputs_.logprobs.Slice(0, num_rows),
                .top_tokens = outputs_.top_tokens.Slice(0, num_rows),
                .top_logprobs = outputs_.top_logprobs.Slice(0, num_rows),
                .finite = outputs_.finite.Slice(0, num_rows)},
               device_->stream());
}

// The last of a step.
void ModelExecutor::EnqueueDownload(const Flight& flight) {
  device_->Download(output_block_.data(), host_blocks_[flight.mark].outputs->data(),
                    flight.num_output_bytes);
  device_->Mark(flight.mark);
}

// A step that IsRecordable, up to its edits. The first step of a shape runs as it is, so that
// whatever a kernel's first launch sets up is there when the second one is recorded.
void ModelExecutor::EnqueueRecorded(const StepInputs& inputs) {
  const bool is_whole = inputs.shape.num_edited_rows == 0;
  const auto enqueue = [&] {
    EnqueueForward(inputs, /*takes_pending_tokens=*/true);
    if (is_whole) EnqueueSampling(inputs, {});
  };
  const auto [entry, is_new] =
      graphs_.try_emplace(GraphKey{inputs.shape.num_tokens, inputs.shape.max_pages, is_whole});
  if (is_new) return enqueue();
  if (entry->second == nullptr) {
    device_->BeginRecording();
    enqueue();
    entry->second = device_->EndRecording();
  }
  if (entry->second != nullptr) entry->second->Launch();
}

void ModelExecutor::Launch(const Batch& batch) {
  CheckBatch(batch);
  NSA_CHECK_LE(static_cast<int>(in_flight_.size()), max_steps_ahead());
  NSA_CHECK(in_flight_.empty() || !in_flight_.back().awaits_edits);
  const bool is_recordable = IsRecordable(batch);
  const Flight& flight =
      in_flight_.emplace_back(FlightOf(batch, is_recordable ? PaddedShape(batch) : ShapeOf(batch)));
  if (is_lost_) return;
  device_->Enter();
  CopyPages(batch);
  const StepInputs inputs = Upload(batch, flight.shape, flight.mark);
  if (is_recordable) {
    EnqueueRecorded(inputs);
  } else {
    const bool has_pending = std::any_of(batch.token_ids.begin(), batch.token_ids.end(),
                                         [](int32_t id) { return id < 0; });
    EnqueueForward(inputs, has_pending);
    if (!flight.awaits_edits) EnqueueSampling(inputs, {});
  }
  if (!flight.awaits_edits) EnqueueDownload(flight);
}

ModelExecutor::Flight ModelExecutor::FlightOf(const Batch& batch, const StepShape& shape) {
  NSA_CHECK_EQ(static_cast<int64_t>(batch.rows.size()), batch.num_rows());
  Flight flight{.mark = static_cast<int>(num_launched_++ % Device::kNumMarks),
                .shape = shape,
                .awaits_edits = batch.num_edited_rows > 0,
                .num_output_bytes = outputs_.num_short_bytes,
                .num_top_logprobs = {},
                .traced_rows = batch.traced_rows};
  for (const SampleRow& row : batch.rows) {
    flight.num_top_logprobs.push_back(row.num_top_logprobs);
    if (row.num_top_logprobs > 0) flight.num_output_bytes = outputs_.num_bytes_before_blocks;
  }
  if (batch.num_traced() > 0) flight.num_output_bytes = outputs_.num_bytes;
  return flight;
}

void ModelExecutor::LaunchSampling(const RowEdits& edits) {
  NSA_CHECK(!in_flight_.empty() && in_flight_.back().awaits_edits) << "no step awaits edits";
  Flight& flight = in_flight_.back();
  NSA_CHECK_EQ(edits.num_rows(), flight.shape.num_edited_rows);
  flight.awaits_edits = false;
  if (is_lost_) return;
  EnqueueSampling(StepInputs(input_block_.data(), flight.shape), FillEdits(edits, flight.mark));
  EnqueueDownload(flight);
}

absl::StatusOr<std::vector<SampledToken>> ModelExecutor::Collect() {
  NSA_CHECK(!in_flight_.empty()) << "no step is in flight";
  NSA_CHECK(!in_flight_.front().awaits_edits);
  const Flight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  const absl::Status status =
      is_lost_ ? absl::InternalError("the device was lost before") : device_->Await(flight.mark);
  if (!status.ok()) {
    is_lost_ = true;
    return status;
  }
  const StepOutputs outputs(host_blocks_[flight.mark].outputs->data(), output_extent_);
  std::vector<SampledToken> sampled;
  for (const int32_t num_top : flight.num_top_logprobs) {
    sampled.push_back(
        outputs.Read(static_cast<int64_t>(sampled.size()), num_top, limits_.vocab_size));
  }
  for (size_t i = 0; i < flight.traced_rows.size(); ++i) {
    sampled[flight.traced_rows[i]].blocks = outputs.ReadBlocks(static_cast<int64_t>(i));
  }
  return sampled;
}

TensorView ModelExecutor::ForwardLogits(const Batch& batch) {
  CheckBatch(batch);
  NSA_CHECK(in_flight_.empty());
  device_->Enter();
  CopyPages(batch);
  return Forward(Upload(batch, ShapeOf(batch), 0));
}

KvTraffic ModelExecutor::DecodeTraffic(int64_t num_tokens) const {
  return model_->attention().DecodeTraffic(num_tokens);
}

int64_t ModelExecutor::kv_cache_bytes() const {
  return cache_.spec().BytesPerPage() * cache_.num_pages() +
         cache_.spec().BytesPerRecentPage() * cache_.num_recent_pages();
}

int64_t ModelExecutor::workspace_bytes() const {
  return workspace_.capacity_bytes() + logits_.num_bytes() + edited_logits_.num_bytes() +
         input_block_.num_bytes() + output_block_.num_bytes();
}

}  // namespace nsa
