#include "engine/model_executor.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "kernels/pending_tokens.h"

namespace nsa {
namespace {

constexpr int64_t kMaxSeqs = 1 << 16;
constexpr int64_t kMaxPages = std::numeric_limits<int32_t>::max();

absl::Status CheckRange(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; allowed: ", min, " to ", max));
}

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

absl::Status CheckExecutorOptions(const ExecutorOptions& options, const Device& device) {
  NSA_RETURN_IF_ERROR(CheckRange("--max-num-seqs", options.max_num_seqs, 1, kMaxSeqs));
  NSA_RETURN_IF_ERROR(
      CheckRange("--max-batched-tokens", options.max_batched_tokens, 1, kMaxBatchedTokens));
  NSA_RETURN_IF_ERROR(
      CheckRange("--max-chunk-tokens", options.max_chunk_tokens, 1, options.max_batched_tokens));
  if (options.kv_cache_bytes <= device.total_bytes()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("--kv-cache-bytes is ", options.kv_cache_bytes,
                                                   ", the device (", device.description(), ") has ",
                                                   device.total_bytes(), " bytes of memory"));
}

namespace {

// What the options and the model say; the numbers of pages are not known yet.
ExecutorLimits LimitsOf(const Model& model, const ExecutorOptions& options) {
  const CacheSpec& spec = model.attention().cache_spec();
  const int64_t max_seq_tokens =
      options.max_seq_tokens > 0 ? options.max_seq_tokens : model.config().max_position;
  return {.page_tokens = spec.page_tokens,
          .lookback_tokens = spec.lookback_tokens,
          .max_num_seqs = options.max_num_seqs,
          .max_chunk_tokens = options.max_chunk_tokens,
          .max_batched_tokens = options.max_batched_tokens,
          .vocab_size = model.config().vocab_size,
          .max_seq_pages = (max_seq_tokens + spec.page_tokens - 1) / spec.page_tokens,
          .shares_prefixes = options.share_prefixes};
}

StepShape LargestShape(const ExecutorLimits& limits) {
  return {.num_tokens = limits.max_batched_tokens,
          .num_tiles = limits.max_batched_tokens,
          .num_seqs = limits.max_num_seqs,
          .num_rows = limits.max_rows(),
          .max_pages = limits.max_seq_pages,
          .recent_columns = limits.recent_columns(),
          .num_edited_rows = limits.max_num_seqs,
          .num_edits = limits.max_num_seqs * limits.vocab_size,
          .num_masks = limits.max_num_seqs,
          .mask_words = NumMaskWords(limits.vocab_size)};
}

// Divides cache_bytes: the recent pages that sequences need and one page; of what is left an eighth
// for recent pages that prefixes keep, where they do, and pages.
absl::Status DivideCache(const CacheSpec& spec, int64_t cache_bytes, const ExecutorOptions& options,
                         ExecutorLimits& limits) {
  limits.num_recent_pages = limits.MinRecentPages();
  const int64_t recent_bytes = spec.BytesPerRecentPage() * limits.num_recent_pages;
  const int64_t needed_bytes = recent_bytes + spec.BytesPerPage();
  if (cache_bytes >= needed_bytes) {
    if (options.share_prefixes && recent_bytes > 0) {
      constexpr int64_t kRecentShare = 8;
      limits.num_recent_pages +=
          (cache_bytes - needed_bytes) / kRecentShare / spec.BytesPerRecentPage();
    }
    const int64_t page_bytes = cache_bytes - spec.BytesPerRecentPage() * limits.num_recent_pages;
    limits.num_pages = std::min(page_bytes / spec.BytesPerPage(), kMaxPages);
    return absl::OkStatus();
  }
  const std::string found =
      options.kv_cache_bytes > 0
          ? absl::StrCat("--kv-cache-bytes is ", cache_bytes)
          : absl::StrFormat("%d bytes are left for the caches (--gpu-memory-utilization=%g)",
                            cache_bytes, options.memory_utilization);
  return absl::InvalidArgumentError(
      absl::StrCat(found, ", but ", options.max_num_seqs, " sequences need ", recent_bytes,
                   " bytes and one page of ", spec.page_tokens, " tokens ", spec.BytesPerPage(),
                   ": at least ", needed_bytes));
}

// Of the largest step's logits, inputs and outputs.
int64_t StepBytes(const ExecutorLimits& limits) {
  return StepInputs::BytesOf(LargestShape(limits)) + StepOutputs::BytesOf(limits.max_rows()) +
         (limits.max_rows() + limits.max_num_seqs) * limits.vocab_size * DTypeBytes(DType::kF32);
}

}  // namespace

absl::StatusOr<ModelExecutor::MemoryPlan> ModelExecutor::PlanMemory(
    const Model& model, Device& device, const ExecutorOptions& options) {
  MemoryPlan plan{.limits = LimitsOf(model, options)};
  ExecutorLimits& limits = plan.limits;
  const auto workspace_bytes = [&] {
    return model.WorkspaceBytes({.num_tokens = limits.max_batched_tokens,
                                 .num_rows = limits.max_rows(),
                                 .num_seqs = limits.max_num_seqs,
                                 .max_pages = limits.max_seq_pages},
                                device.stream());
  };
  plan.workspace_bytes = workspace_bytes();
  const int64_t step_bytes = StepBytes(limits);
  int64_t cache_bytes = options.kv_cache_bytes;
  if (cache_bytes == 0) {
    const int64_t used_bytes = device.total_bytes() - device.free_bytes();
    const auto allowed_bytes = static_cast<int64_t>(options.memory_utilization *
                                                    static_cast<double>(device.total_bytes()));
    cache_bytes =
        std::max<int64_t>(0, allowed_bytes - used_bytes - plan.workspace_bytes - step_bytes);
  }
  NSA_RETURN_IF_ERROR(DivideCache(model.attention().cache_spec(), cache_bytes, options, limits));
  if (limits.num_pages < limits.max_seq_pages) {
    limits.max_seq_pages = limits.num_pages;
    plan.workspace_bytes = workspace_bytes();
  }
  if (device.type() == DeviceType::kCuda) {
    NSA_RETURN_IF_ERROR(CheckFreeMemory("caches and activations together",
                                        cache_bytes + plan.workspace_bytes + step_bytes, device));
  }
  return plan;
}

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
      record_graphs_(options.record_graphs && device_->CanRecord()),
      cache_(model_->attention().cache_spec(), limits_.num_pages, limits_.num_recent_pages,
             device_.get()),
      workspace_(plan.workspace_bytes, device_.get()),
      logits_(limits_.max_rows() * limits_.vocab_size * DTypeBytes(DType::kF32), device_.get()),
      edited_logits_(limits_.max_num_seqs * limits_.vocab_size * DTypeBytes(DType::kF32),
                     device_.get()),
      input_block_(StepInputs::BytesOf(LargestShape(limits_)), device_.get()),
      output_block_(StepOutputs::BytesOf(limits_.max_rows()), device_.get()),
      outputs_(output_block_.data(), limits_.max_rows()) {
  for (HostBlocks& blocks : host_blocks_) {
    blocks.inputs.emplace(input_block_.num_bytes(), device_.get());
    blocks.outputs.emplace(output_block_.num_bytes(), device_.get());
  }
}

void ModelExecutor::CheckBatch(const Batch& batch) const {
  NSA_CHECK_LE(batch.num_tokens(), limits_.max_batched_tokens);
  NSA_CHECK_LE(batch.num_seqs, limits_.max_num_seqs);
  NSA_CHECK_LE(batch.num_rows(), limits_.max_rows());
  NSA_CHECK_LE(batch.num_edited_rows(), limits_.max_num_seqs);
  NSA_CHECK_LE(batch.num_masks(), limits_.max_num_seqs);
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

// Every token decodes and is sampled, so that the step's kernels depend on two numbers alone.
bool ModelExecutor::IsRecordable(const Batch& batch) const {
  return record_graphs_ && batch.num_decode_tokens == batch.num_tokens() &&
         batch.num_rows() == batch.num_tokens() && batch.num_edited_rows() == 0;
}

StepShape ModelExecutor::PaddedShape(const Batch& batch) const {
  const int64_t num_tokens = PaddedTokens(batch.num_tokens(), limits_.max_num_seqs);
  return {.num_tokens = num_tokens,
          .num_decode_tokens = num_tokens,
          .num_seqs = num_tokens,
          .num_rows = num_tokens,
          .max_pages = PaddedPages(batch.max_pages, limits_.max_seq_pages),
          .recent_columns = batch.recent_columns,
          .mask_words = batch.mask_words};
}

void ModelExecutor::CopyPages(const Batch& batch) {
  for (const auto& [from, to] : batch.page_copies) cache_.CopyPage(from, to);
  for (const auto& [from, to] : batch.recent_copies) cache_.CopyRecentPage(from, to);
}

// The inputs but for the masks on the device, by way of the mark's host block.
StepInputs ModelExecutor::Upload(const Batch& batch, const StepShape& shape, int mark) {
  const PinnedBuffer& host_block = *host_blocks_[mark].inputs;
  const StepInputs host(host_block.data(), shape);
  NSA_CHECK_LE(host.num_bytes, host_block.num_bytes());
  host.Fill(batch);
  device_->Upload(host_block.data(), input_block_.data(), host.num_bytes_before_masks);
  return {input_block_.data(), shape};
}

// Waits for the masks and sends them after the other inputs.
void ModelExecutor::UploadMasks(const Batch& batch, const StepInputs& inputs, int mark) {
  if (batch.num_masks() == 0) return;
  const StepInputs host(host_blocks_[mark].inputs->data(), inputs.shape);
  host.FillMasks(batch);
  device_->Upload(host.masks.raw(), inputs.masks.raw(), host.masks.num_bytes());
}

TensorView ModelExecutor::Forward(const StepInputs& inputs) {
  const TensorView logits(logits_.data(), DType::kF32, {inputs.shape.num_rows, limits_.vocab_size});
  const StepView step{.tokens = {.sequence = inputs.token_sequence,
                                 .position = inputs.token_position,
                                 .num_decode_tokens = inputs.shape.num_decode_tokens,
                                 .tiles = inputs.tiles},
                      .page_table = inputs.page_table,
                      .recent_table = inputs.recent_table,
                      .max_pages = inputs.shape.max_pages};
  model_->Forward({.token_ids = inputs.token_ids,
                   .step = step,
                   .logit_tokens = inputs.logit_tokens,
                   .logits = logits},
                  cache_, workspace_, device_->stream());
  return logits;
}

// A whole step without masks behind its inputs.
void ModelExecutor::Enqueue(const StepInputs& inputs, bool takes_pending_tokens) {
  EnqueueSampling(inputs, EnqueueForward(inputs, takes_pending_tokens));
}

TensorView ModelExecutor::EnqueueForward(const StepInputs& inputs, bool takes_pending_tokens) {
  if (takes_pending_tokens) {
    TakePendingTokens({.ids = inputs.token_ids, .sampled = outputs_.tokens}, device_->stream());
  }
  return Forward(inputs);
}

void ModelExecutor::EnqueueSampling(const StepInputs& inputs, const TensorView& logits) {
  const Stream stream = device_->stream();
  const int64_t num_rows = inputs.shape.num_rows;
  if (num_rows == 0) return;
  const TensorView edited(edited_logits_.data(), DType::kF32,
                          {inputs.shape.num_edited_rows, limits_.vocab_size});
  EditLogits({.logits = logits,
              .rows = inputs.edited_rows,
              .edit_end = inputs.edit_end,
              .edits = inputs.edits,
              .mask_of = inputs.mask_of,
              .masks = inputs.masks,
              .out = edited},
             stream);
  SampleTokens({.logits = logits,
                .edited_logits = edited,
                .rows = inputs.rows,
                .tokens = outputs_.tokens.Slice(0, num_rows),
                .logprobs = outputs_.logprobs.Slice(0, num_rows),
                .top_tokens = outputs_.top_tokens.Slice(0, num_rows),
                .top_logprobs = outputs_.top_logprobs.Slice(0, num_rows),
                .finite = outputs_.finite.Slice(0, num_rows)},
               stream);
}

// The first step of a shape runs as it is, so that whatever a kernel's first launch sets up is
// there when the second one is recorded.
void ModelExecutor::EnqueueRecorded(const StepInputs& inputs) {
  const auto [entry, is_new] =
      graphs_.try_emplace(GraphKey(inputs.shape.num_tokens, inputs.shape.max_pages));
  if (is_new) return Enqueue(inputs, /*takes_pending_tokens=*/true);
  if (entry->second == nullptr) {
    device_->BeginRecording();
    Enqueue(inputs, /*takes_pending_tokens=*/true);
    entry->second = device_->EndRecording();
  }
  if (entry->second != nullptr) entry->second->Launch();
}

void ModelExecutor::Launch(const Batch& batch) {
  CheckBatch(batch);
  NSA_CHECK_LE(static_cast<int>(in_flight_.size()), max_steps_ahead());
  const int mark = static_cast<int>(num_launched_++ % Device::kNumMarks);
  Flight& flight = in_flight_.emplace_back(Flight{.mark = mark, .num_top_logprobs = {}});
  bool wants_top = false;
  for (const SampleRow& row : batch.rows) {
    flight.num_top_logprobs.push_back(row.num_top_logprobs);
    wants_top |= row.num_top_logprobs > 0;
  }
  NSA_CHECK_EQ(static_cast<int64_t>(batch.rows.size()), batch.num_rows());
  if (is_lost_) return;
  device_->Enter();
  CopyPages(batch);
  if (IsRecordable(batch)) {
    EnqueueRecorded(Upload(batch, PaddedShape(batch), mark));
  } else {
    const bool has_pending = std::any_of(batch.token_ids.begin(), batch.token_ids.end(),
                                         [](int32_t id) { return id < 0; });
    const StepInputs inputs = Upload(batch, ShapeOf(batch), mark);
    const TensorView logits = EnqueueForward(inputs, has_pending);
    UploadMasks(batch, inputs, mark);
    EnqueueSampling(inputs, logits);
  }
  device_->Download(output_block_.data(), host_blocks_[mark].outputs->data(),
                    wants_top ? outputs_.num_bytes : outputs_.num_short_bytes);
  device_->Mark(mark);
}

absl::StatusOr<std::vector<SampledToken>> ModelExecutor::Collect() {
  NSA_CHECK(!in_flight_.empty()) << "no step is in flight";
  const Flight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  const absl::Status status =
      is_lost_ ? absl::InternalError("the device was lost before") : device_->Await(flight.mark);
  if (!status.ok()) {
    is_lost_ = true;
    return status;
  }
  const StepOutputs outputs(host_blocks_[flight.mark].outputs->data(), limits_.max_rows());
  std::vector<SampledToken> sampled;
  for (const int32_t num_top : flight.num_top_logprobs) {
    sampled.push_back(
        outputs.Read(static_cast<int64_t>(sampled.size()), num_top, limits_.vocab_size));
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
  return workspace_.capacity_bytes() + logits_.num_bytes() + input_block_.num_bytes() +
         output_block_.num_bytes();
}

}  // namespace nsa
