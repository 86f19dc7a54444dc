#pragma once
// ModelRunner: feeds sequences to a model chunk by chunk, without scheduler or executor, and
// returns the logits of every token. Pages are scattered over the cache, and all of the cache
// starts as NaN, so that a read of a row that nobody wrote shows.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/model/registry.h"
#include "engine/runtime/device.h"

namespace nsa {

struct RunnerOptions {
  int64_t num_seqs = 1;
  int64_t max_seq_tokens = 512;
  int64_t max_chunk_tokens = 512;
  int num_threads = 1;
  std::shared_ptr<Device> device;    // null: the CPU with num_threads
  std::string attention;             // as ModelOptions
  std::optional<DType> cache_dtype;  // as ModelOptions
};

// One row of logits per token.
using Logits = std::vector<std::vector<float>>;

class ModelRunner {
 public:
  // Loads a model folder; a failure fails the test.
  ModelRunner(const std::string& folder, const RunnerOptions& options);

  // The next tokens of a sequence.
  struct Chunk {
    int32_t sequence = 0;
    std::span<const int32_t> tokens;
  };
  // One step; the logits of the chunks' tokens, one after another.
  Logits Step(const std::vector<Chunk>& chunks);
  // All of `tokens` as sequence `sequence`, in chunks of the given lengths, again and again from
  // the first one.
  Logits Feed(int32_t sequence, std::span<const int32_t> tokens,
              const std::vector<int64_t>& chunk_tokens);

  const Model& model() const { return *model_; }

 private:
  std::vector<int32_t> PageTable() const;
  Batch MakeBatch(const std::vector<Chunk>& chunks);

  RunnerOptions options_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Model> model_;
  int64_t num_pages_per_seq_ = 0;
  int64_t recent_columns_ = 0;  // each sequence has as many recent pages and uses them in turn
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Workspace> workspace_;
  std::vector<int64_t> num_done_;  // tokens of each sequence in the cache
};

}  // namespace nsa
