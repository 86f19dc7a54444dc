#pragma once
// Executor: runs batches through a model and samples. The engine loop above it knows no tensors; a
// test puts a fake model behind the same interface.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/batch.h"
#include "engine/cache/cache_spec.h"
#include "engine/request.h"

namespace nsa {

// The largest step that any executor takes.
inline constexpr int64_t kMaxBatchedTokens = 1 << 20;

// What the scheduler must respect. Fixed at start-up.
struct ExecutorLimits {
  int64_t page_tokens = 0;         // tokens per page = selection block
  int64_t num_pages = 0;           // pages of the pool
  int64_t num_recent_pages = 0;    // of theirs, MinRecentPages at least
  int64_t lookback_tokens = 0;     // as CacheSpec; 0: sequences have no recent pages
  int64_t max_num_seqs = 0;        // sequences that can be in the cache at once
  int64_t max_chunk_tokens = 0;    // tokens of one sequence per step (W of docs/nsa.md, 4)
  int64_t max_batched_tokens = 0;  // tokens of all sequences per step
  int64_t vocab_size = 0;
  int64_t max_scored_rows = 256;  // prompt tokens per step whose log-probabilities are wanted
  int64_t max_seq_pages = 0;      // pages of one sequence; 0: all of the pool
  bool shares_prefixes = false;   // whether sequences begin in the pages of others, where they can

  // Rows of a step: a sampled token of every sequence, and prompt tokens.
  int64_t max_rows() const { return max_num_seqs + max_scored_rows; }
  // Columns of a batch's table of recent pages: those that a chunk and its lookback can touch.
  int64_t recent_columns() const {
    if (lookback_tokens == 0) return 0;
    return MaxPagesTouched(lookback_tokens + max_chunk_tokens, page_tokens);
  }
  // As many as the sequences of the largest step can need together, so that none ever waits for
  // one.
  int64_t MinRecentPages() const {
    if (lookback_tokens == 0) return 0;
    return max_num_seqs * (MaxPagesTouched(lookback_tokens, page_tokens) + 1) +
           max_batched_tokens / page_tokens;
  }
};

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TopLogprob> top_logprobs;
  std::vector<int32_t> blocks;  // of a traced row, as TokenTrace::blocks
  bool finite = true;  // false: the row's logits held a NaN or an infinity, the token means nothing
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual const ExecutorLimits& limits() const = 0;
  // How many steps may be in flight when another is launched: 0 or 1. With 0, Collect follows
  // Launch and LaunchSampling.
  virtual int max_steps_ahead() const { return 0; }
  // Starts a step; steps take effect in the order of their launches. `batch` is not read after
  // return. If it has edited rows, that is the forward pass alone, and LaunchSampling follows:
  // before the next Launch, but the step before may be collected in between.
  virtual void Launch(const Batch& batch) = 0;
  // Starts the sampling of the step launched last, with what was missing. Waits for masks, or
  // computes them; `edits` are not read after return.
  virtual void LaunchSampling(const RowEdits& edits) = 0;
  // Waits for the oldest step in flight and returns one sampled token per row of its batch. An
  // error fails the sequences of that batch only, unless the executor is lost.
  virtual absl::StatusOr<std::vector<SampledToken>> Collect() = 0;
  // True once a step failed in a way that no later one can survive, as an error of the GPU: all
  // steps fail from then on.
  virtual bool is_lost() const { return false; }
  // One step from its launch to its tokens, with nothing else in flight.
  absl::StatusOr<std::vector<SampledToken>> Execute(const Batch& batch,
                                                    const RowEdits& edits = {}) {
    Launch(batch);
    if (batch.num_edited_rows > 0) LaunchSampling(edits);
    return Collect();
  }
  // Bytes a decode step of one sequence reads with `num_tokens` in the cache, its own token
  // included, all layers.
  virtual KvTraffic DecodeTraffic(int64_t num_tokens) const = 0;
};

}  // namespace nsa
