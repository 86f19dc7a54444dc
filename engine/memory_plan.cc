#include "engine/memory_plan.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"

namespace nsa {
namespace {

constexpr int64_t kMaxSeqs = 1 << 16;
constexpr int64_t kMaxPages = std::numeric_limits<int32_t>::max();

absl::Status CheckRange(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; allowed: ", min, " to ", max));
}

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
          .num_traced = limits.max_num_seqs};
}

// Every sequence has a mask and edits every token.
EditShape LargestEdits(const ExecutorLimits& limits) {
  return {.num_rows = limits.max_num_seqs,
          .num_edits = limits.max_num_seqs * limits.vocab_size,
          .has_masks = true,
          .vocab_size = limits.vocab_size};
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

OutputExtent OutputsOf(const ExecutorLimits& limits, const Model& model) {
  return {.max_rows = limits.max_rows(),
          .max_traced = limits.max_num_seqs,
          .num_layers = model.config().num_layers,
          .num_traced_blocks = model.attention().num_traced_blocks()};
}

}  // namespace

int64_t MemoryPlan::step_bytes() const {
  return input_bytes + StepOutputs::BytesOf(outputs) +
         (limits.max_rows() + limits.max_num_seqs) * limits.vocab_size * DTypeBytes(DType::kF32);
}

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

absl::StatusOr<MemoryPlan> PlanMemory(const Model& model, Device& device,
                                      const ExecutorOptions& options) {
  MemoryPlan plan{.limits = LimitsOf(model, options)};
  ExecutorLimits& limits = plan.limits;
  plan.outputs = OutputsOf(limits, model);
  const auto measure_largest_step = [&] {
    plan.workspace_bytes = model.WorkspaceBytes({.num_tokens = limits.max_batched_tokens,
                                                 .num_rows = limits.max_rows(),
                                                 .num_seqs = limits.max_num_seqs,
                                                 .max_pages = limits.max_seq_pages},
                                                device.stream());
    plan.input_bytes = StepInputs::BytesOf(LargestShape(limits));
    plan.edit_bytes = StepEdits::BytesOf(LargestEdits(limits));
  };
  measure_largest_step();
  const int64_t step_bytes = plan.step_bytes();
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
    measure_largest_step();
  }
  if (device.type() == DeviceType::kCuda) {
    NSA_RETURN_IF_ERROR(CheckFreeMemory("caches and activations together",
                                        cache_bytes + plan.workspace_bytes + step_bytes, device));
  }
  return plan;
}

}  // namespace nsa
