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
// Not a multiple of anything, so that no two pages hold the same.
constexpr int64_t kRandomElements = 8'000'009;

int64_t NumPages(int64_t num_tokens, const ModelExecutor& executor) {
  const int64_t page_tokens = executor.limits().page_tokens;
  return (num_tokens + page_tokens - 1) / page_tokens;
}

// Random values in [-1, 1) of one dtype, copied wherever they are wanted.
class RandomValues {
 public:
  RandomValues(DType dtype, Device& device)
      : device_(device), block_(kRandomElements * DTypeBytes(dtype), &device) {
    std::mt19937 random(2);
    const auto value = [&random] { return static_cast<float>(random()) * 0x1p-31F - 1; };
    if (dtype == DType::kF16) {
      Fill<Float16>(value);
    } else {
      DispatchFloat(dtype, [&]<typename T>() { Fill<T>(value); });
    }
  }

  void CopyTo(const TensorView& tensor) {
    auto* to = static_cast<uint8_t*>(tensor.raw());
    for (int64_t left = tensor.num_bytes(); left > 0;) {
      const int64_t num_bytes = std::min(left, block_.num_bytes());
      device_.Upload(block_.data(), to, num_bytes);
      to += num_bytes;
      left -= num_bytes;
    }
  }

 private:
  template <typename T, typename F>
  void Fill(F&& value) {
    auto* values = reinterpret_cast<T*>(block_.data());
    std::generate(values, values + kRandomElements, [&] { return T(value()); });
  }

  Device& device_;
  PinnedBuffer block_;
};

// The recent pages that a token at `position` looks back at, others for each sequence.
void AddRecentPages(int64_t position, const ExecutorLimits& limits, Batch& batch) {
  batch.recent_columns = limits.recent_columns();
  batch.recent_table.assign(batch.num_seqs * batch.recent_columns, -1);
  if (batch.recent_columns == 0) return;
  const int64_t first = std::max<int64_t>(0, position - limits.lookback_tokens);
  int32_t next_page = 0;
  for (int64_t seq = 0; seq < batch.num_seqs; ++seq) {
    for (int64_t page = first / limits.page_tokens; page <= position / limits.page_tokens; ++page) {
      const int64_t column = page % batch.recent_columns;
      batch.recent_table[seq * batch.recent_columns + column] = next_page++;
    }
  }
}

// One token of each sequence at `position`; the pages lie in no order, as after a while in a real
// pool.
Batch DecodeBatch(int64_t position, int64_t num_seqs, const ModelExecutor& executor) {
  Batch batch{.num_seqs = num_seqs, .max_pages = NumPages(position + 1, executor)};
  batch.token_ids.assign(num_seqs, 1);
  batch.token_sequence.resize(num_seqs);
  std::iota(batch.token_sequence.begin(), batch.token_sequence.end(), 0);
  batch.token_position.assign(num_seqs, static_cast<int32_t>(position));
  batch.page_table.resize(num_seqs * batch.max_pages);
  std::iota(batch.page_table.begin(), batch.page_table.end(), 0);
  std::shuffle(batch.page_table.begin(), batch.page_table.end(), std::mt19937(1));
  AddRecentPages(position, executor.limits(), batch);
  batch.num_decode_tokens = num_seqs;
  batch.logit_tokens = batch.token_sequence;
  batch.rows.assign(num_seqs, {.params = {.temperature = 0}, .position = position + 1});
  return batch;
}

void Collect(ModelExecutor& executor) {
  const auto sampled = executor.Collect();
  NSA_CHECK(sampled.ok() && sampled->front().finite);
}

}  // namespace

void FillCache(int64_t num_tokens, ModelExecutor& executor) {
  KvCache& cache = executor.cache();
  const CacheSpec& spec = cache.spec();
  RandomValues random(spec.dtype, executor.device());
  const int64_t num_pages = NumPages(num_tokens, executor);
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (size_t segment = 0; segment < spec.page_segments.size(); ++segment) {
      const KvCache::KvTensors pages = cache.PageTensors(layer, static_cast<int64_t>(segment));
      random.CopyTo(pages.k.Slice(0, num_pages));
      random.CopyTo(pages.v.Slice(0, num_pages));
    }
    for (size_t segment = 0; segment < spec.recent_segments.size(); ++segment) {
      const KvCache::KvTensors recent = cache.RecentTensors(layer, static_cast<int64_t>(segment));
      random.CopyTo(recent.k);
      random.CopyTo(recent.v);
    }
  }
  executor.device().Mark(0);
  NSA_CHECK(executor.device().Await(0).ok());
}

int64_t MaxSequences(int64_t num_tokens, const ModelExecutor& executor) {
  const ExecutorLimits& limits = executor.limits();
  return std::min(limits.max_num_seqs, limits.num_pages / NumPages(num_tokens, executor));
}

double DecodeRoundSeconds(int64_t num_tokens, int64_t num_seqs, ModelExecutor& executor) {
  std::vector<Batch> batches;
  for (int64_t position = num_tokens - kRoundTokens; position < num_tokens; ++position) {
    batches.push_back(DecodeBatch(position, num_seqs, executor));
    if (executor.max_steps_ahead() == 0 || batches.size() == 1) continue;
    for (int32_t seq = 0; seq < num_seqs; ++seq) {
      batches.back().token_ids[seq] = Batch::TokenOfRow(seq);
    }
  }
  const auto started = std::chrono::steady_clock::now();
  int num_in_flight = 0;
  for (const Batch& batch : batches) {
    executor.Launch(batch);
    if (++num_in_flight <= executor.max_steps_ahead()) continue;
    Collect(executor);
    --num_in_flight;
  }
  for (; num_in_flight > 0; --num_in_flight) Collect(executor);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
  return elapsed.count() / kRoundTokens;
}

}  // namespace nsa::bench
