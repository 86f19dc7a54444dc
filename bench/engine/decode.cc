#include "bench/engine/decode.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <vector>

#include "base/check.h"

namespace nsa::bench {
namespace {

constexpr int64_t kRoundTokens = 16;

int64_t NumPages(int64_t num_tokens, const ModelExecutor& executor) {
  const int64_t page_tokens = executor.limits().page_tokens;
  return (num_tokens + page_tokens - 1) / page_tokens;
}

void FillRandomly(const TensorView& tensor, std::mt19937& random) {
  DispatchFloat(tensor.dtype(), [&]<typename T>() {
    T* values = tensor.data<T>();
    for (int64_t i = 0; i < tensor.num_elements(); ++i) {
      values[i] = T(static_cast<float>(random()) * 0x1p-31F - 1);
    }
  });
}

// One sequence's token at `position`; its pages lie in no order, as after a while in a real pool.
Batch DecodeBatch(int64_t position, const ModelExecutor& executor) {
  Batch batch{.num_seqs = 1, .max_pages = NumPages(position + 1, executor)};
  batch.token_ids = {1};
  batch.token_sequence = {0};
  batch.token_position = {static_cast<int32_t>(position)};
  batch.page_table.resize(batch.max_pages);
  std::iota(batch.page_table.begin(), batch.page_table.end(), 0);
  std::shuffle(batch.page_table.begin(), batch.page_table.end(), std::mt19937(1));
  batch.slots = {0};
  batch.logit_tokens = {0};
  batch.rows = {{.params = {.temperature = 0}, .position = position + 1}};
  return batch;
}

}  // namespace

void FillCache(int64_t num_tokens, ModelExecutor& executor) {
  std::mt19937 random(2);
  KvCache& cache = executor.cache();
  const CacheSpec& spec = cache.spec();
  const int64_t num_pages = NumPages(num_tokens, executor);
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (size_t segment = 0; segment < spec.page_segments.size(); ++segment) {
      const KvCache::KvTensors pages = cache.PageTensors(layer, static_cast<int64_t>(segment));
      FillRandomly(pages.k.Slice(0, num_pages), random);
      FillRandomly(pages.v.Slice(0, num_pages), random);
    }
    for (size_t segment = 0; segment < spec.slot_segments.size(); ++segment) {
      const KvCache::KvTensors slots = cache.SlotTensors(layer, static_cast<int64_t>(segment));
      FillRandomly(slots.k, random);
      FillRandomly(slots.v, random);
    }
  }
}

double DecodeRoundSeconds(int64_t num_tokens, ModelExecutor& executor) {
  std::vector<Batch> batches;
  for (int64_t position = num_tokens - kRoundTokens; position < num_tokens; ++position) {
    batches.push_back(DecodeBatch(position, executor));
  }
  const auto started = std::chrono::steady_clock::now();
  for (const Batch& batch : batches) {
    const auto sampled = executor.Execute(batch);
    NSA_CHECK(sampled.ok() && sampled->front().finite);
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
  return elapsed.count() / kRoundTokens;
}

}  // namespace nsa::bench
