#include "engine/model_executor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/runtime/copy.h"

namespace nsa {
namespace {

constexpr int64_t kMaxSeqs = 1 << 16;
constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxPages = std::numeric_limits<int32_t>::max();

absl::Status CheckRange(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; allowed: ", min, " to ", max));
}

}  // namespace

absl::Status CheckExecutorOptions(const ExecutorOptions& options) {
  NSA_RETURN_IF_ERROR(CheckRange("--max-num-seqs", options.max_num_seqs, 1, kMaxSeqs));
  NSA_RETURN_IF_ERROR(
      CheckRange("--max-batched-tokens", options.max_batched_tokens, 1, kMaxBatchedTokens));
  NSA_RETURN_IF_ERROR(
      CheckRange("--max-chunk-tokens", options.max_chunk_tokens, 1, options.max_batched_tokens));
  NSA_RETURN_IF_ERROR(CheckRange("--threads", options.num_threads, 1, kMaxThreads));
  const int64_t device_bytes = DeviceMemoryBytes();
  if (options.kv_cache_bytes <= device_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("--kv-cache-bytes is ", options.kv_cache_bytes,
                                                   ", the machine has ", device_bytes,
                                                   " bytes of memory"));
}

namespace {

// Pages that fit beside the slots.
absl::StatusOr<int64_t> NumPages(const CacheSpec& spec, const ExecutorOptions& options) {
  const int64_t slot_bytes = spec.BytesPerSlot() * options.max_num_seqs;
  const int64_t needed_bytes = slot_bytes + spec.BytesPerPage();
  if (options.kv_cache_bytes < needed_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-cache-bytes is ", options.kv_cache_bytes, ", but ", options.max_num_seqs,
                     " sequences need ", slot_bytes, " bytes and one page of ", spec.page_tokens,
                     " tokens ", spec.BytesPerPage(), ": at least ", needed_bytes));
  }
  return std::min((options.kv_cache_bytes - slot_bytes) / spec.BytesPerPage(), kMaxPages);
}

bool AllFinite(const TensorView& row) {
  const float* values = row.data<float>();
  return std::all_of(values, values + row.num_elements(),
                     [](float value) { return std::isfinite(value); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelExecutor>> ModelExecutor::Make(std::unique_ptr<Model> model,
                                                                   const ExecutorOptions& options) {
  NSA_RETURN_IF_ERROR(CheckExecutorOptions(options));
  NSA_ASSIGN_OR_RETURN(const int64_t num_pages, NumPages(model->attention().cache_spec(), options));
  return std::unique_ptr<ModelExecutor>(new ModelExecutor(std::move(model), options, num_pages));
}

ModelExecutor::ModelExecutor(std::unique_ptr<Model> model, const ExecutorOptions& options,
                             int64_t num_pages)
    : model_(std::move(model)),
      limits_{.page_tokens = model_->attention().cache_spec().page_tokens,
              .num_pages = num_pages,
              .num_slots = options.max_num_seqs,
              .max_chunk_tokens = options.max_chunk_tokens,
              .max_batched_tokens = options.max_batched_tokens,
              .vocab_size = model_->config().vocab_size},
      threads_(options.num_threads),
      cache_(model_->attention().cache_spec(), num_pages, options.max_num_seqs),
      workspace_(model_->WorkspaceBytes({.num_tokens = options.max_batched_tokens,
                                         .num_rows = options.max_num_seqs,
                                         .num_seqs = options.max_num_seqs,
                                         .max_pages = num_pages},
                                        stream())),
      buffer_memory_(BufferBytes()),
      buffers_(TakeBuffers()) {}

int64_t ModelExecutor::BufferBytes() const {
  const auto bytes = [](int64_t num_elements) {
    return Workspace::Rounded(num_elements * DTypeBytes(DType::kI32));
  };
  const int64_t num_seqs = limits_.num_slots;
  return 3 * bytes(limits_.max_batched_tokens) + bytes(4 * limits_.max_batched_tokens) +
         bytes(num_seqs * limits_.num_pages) + 4 * bytes(num_seqs) +
         bytes(num_seqs * limits_.vocab_size) + 2 * bytes(num_seqs * kMaxTopLogprobs);
}

ModelExecutor::StepBuffers ModelExecutor::TakeBuffers() {
  const int64_t num_seqs = limits_.num_slots, num_tokens = limits_.max_batched_tokens;
  Workspace& memory = buffer_memory_;
  StepBuffers buffers;
  buffers.token_ids = memory.Take(DType::kI32, {num_tokens});
  buffers.token_sequence = memory.Take(DType::kI32, {num_tokens});
  buffers.token_position = memory.Take(DType::kI32, {num_tokens});
  buffers.tiles = memory.Take(DType::kI32, {num_tokens, 4});
  buffers.page_table = memory.Take(DType::kI32, {num_seqs * limits_.num_pages});
  buffers.slots = memory.Take(DType::kI32, {num_seqs});
  buffers.logit_tokens = memory.Take(DType::kI32, {num_seqs});
  buffers.logits = memory.Take(DType::kF32, {num_seqs, limits_.vocab_size});
  buffers.tokens = memory.Take(DType::kI32, {num_seqs});
  buffers.logprobs = memory.Take(DType::kF32, {num_seqs});
  buffers.top_tokens = memory.Take(DType::kI32, {num_seqs, kMaxTopLogprobs});
  buffers.top_logprobs = memory.Take(DType::kF32, {num_seqs, kMaxTopLogprobs});
  return buffers;
}

void ModelExecutor::CheckBatch(const Batch& batch) const {
  NSA_CHECK_LE(batch.num_tokens(), limits_.max_batched_tokens);
  NSA_CHECK_LE(batch.num_seqs, limits_.num_slots);
  NSA_CHECK_LE(batch.num_rows(), limits_.num_slots);
  NSA_CHECK_LE(batch.max_pages, limits_.num_pages);
  NSA_CHECK_EQ(static_cast<int64_t>(batch.token_sequence.size()), batch.num_tokens());
  NSA_CHECK_EQ(static_cast<int64_t>(batch.token_position.size()), batch.num_tokens());
  NSA_CHECK_EQ(static_cast<int64_t>(batch.page_table.size()), batch.num_seqs * batch.max_pages);
  NSA_CHECK_EQ(static_cast<int64_t>(batch.slots.size()), batch.num_seqs);
  for (int32_t page : batch.page_table) NSA_CHECK(page >= -1 && page < limits_.num_pages) << page;
  for (int32_t slot : batch.slots) NSA_CHECK(slot >= 0 && slot < limits_.num_slots) << slot;
  std::vector<int64_t> seq_tokens(batch.num_seqs);
  for (int32_t sequence : batch.token_sequence) {
    NSA_CHECK(sequence >= 0 && sequence < batch.num_seqs) << sequence;
    ++seq_tokens[sequence];
    NSA_CHECK_LE(seq_tokens[sequence], limits_.max_chunk_tokens);
  }
}

StepView ModelExecutor::Upload(const Batch& batch, const Stream& stream) {
  CopyToDevice(batch.token_ids, buffers_.token_ids, stream);
  CopyToDevice(batch.token_sequence, buffers_.token_sequence, stream);
  CopyToDevice(batch.token_position, buffers_.token_position, stream);
  CopyToDevice(batch.tiles, buffers_.tiles, stream);
  CopyToDevice(batch.page_table, buffers_.page_table, stream);
  CopyToDevice(batch.slots, buffers_.slots, stream);
  CopyToDevice(batch.logit_tokens, buffers_.logit_tokens, stream);
  const int64_t num_tokens = batch.num_tokens(), num_seqs = batch.num_seqs;
  const TensorView table = buffers_.page_table.Slice(0, num_seqs * batch.max_pages);
  return {
      .tokens = {.sequence = buffers_.token_sequence.Slice(0, num_tokens),
                 .position = buffers_.token_position.Slice(0, num_tokens),
                 .num_decode_tokens = batch.num_decode_tokens,
                 .tiles = buffers_.tiles.Slice(0, static_cast<int64_t>(batch.tiles.size()) / 4)},
      .page_table = table.Reshape({num_seqs, batch.max_pages}),
      .slot_table = buffers_.slots.Slice(0, num_seqs).Reshape({num_seqs, 1}),
      .max_pages = batch.max_pages};
}

TensorView ModelExecutor::ForwardLogits(const Batch& batch) {
  CheckBatch(batch);
  const TensorView logits = buffers_.logits.Slice(0, batch.num_rows());
  if (batch.num_tokens() == 0) return logits;
  const StepView step = Upload(batch, stream());
  model_->Forward({.token_ids = buffers_.token_ids.Slice(0, batch.num_tokens()),
                   .step = step,
                   .logit_tokens = buffers_.logit_tokens.Slice(0, batch.num_rows()),
                   .logits = logits},
                  cache_, workspace_, stream());
  return logits;
}

absl::StatusOr<std::vector<SampledToken>> ModelExecutor::Execute(const Batch& batch) {
  NSA_CHECK_EQ(static_cast<int64_t>(batch.rows.size()), batch.num_rows());
  const TensorView logits = ForwardLogits(batch);
  if (batch.num_rows() == 0) return std::vector<SampledToken>();
  return Sample(batch, logits, stream());
}

std::vector<SampledToken> ModelExecutor::Sample(const Batch& batch, const TensorView& logits,
                                                const Stream& stream) {
  const int64_t num_rows = batch.num_rows();
  const SampleArgs args{.logits = logits,
                        .rows = batch.rows,
                        .tokens = buffers_.tokens.Slice(0, num_rows),
                        .logprobs = buffers_.logprobs.Slice(0, num_rows),
                        .top_tokens = buffers_.top_tokens.Slice(0, num_rows),
                        .top_logprobs = buffers_.top_logprobs.Slice(0, num_rows)};
  SampleTokens(args, stream);
  std::vector<SampledToken> sampled(num_rows);
  for (int64_t row = 0; row < num_rows; ++row) {
    SampledToken& out = sampled[row];
    out.token = args.tokens.data<int32_t>()[row];
    out.finite = AllFinite(logits.Slice(row, 1));
    const int64_t num_top = std::min<int64_t>(batch.rows[row].num_top_logprobs, limits_.vocab_size);
    if (num_top >= 0) out.logprob = args.logprobs.data<float>()[row];
    for (int64_t i = 0; i < num_top; ++i) {
      const int64_t place = row * kMaxTopLogprobs + i;
      out.top_logprobs.push_back({.token = args.top_tokens.data<int32_t>()[place],
                                  .logprob = args.top_logprobs.data<float>()[place]});
    }
  }
  return sampled;
}

KvTraffic ModelExecutor::DecodeTraffic(int64_t num_tokens) const {
  return model_->attention().DecodeTraffic(num_tokens);
}

int64_t ModelExecutor::kv_cache_bytes() const {
  return cache_.spec().BytesPerPage() * cache_.num_pages() +
         cache_.spec().BytesPerSlot() * cache_.num_slots();
}

int64_t ModelExecutor::workspace_bytes() const {
  return workspace_.capacity_bytes() + buffer_memory_.capacity_bytes();
}

}  // namespace nsa
