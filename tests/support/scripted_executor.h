#pragma once
// ScriptedExecutor: an executor that samples what the test says, and waits, fails or slows down
// when the test says. Where a mask forbids that token, the lowest one that it allows.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/executor.h"

namespace nsa {

class ScriptedExecutor : public Executor {
 public:
  // The token of a row; called on the engine's thread.
  using Script = std::function<int32_t(const SampleRow& row)>;

  explicit ScriptedExecutor(int64_t vocab_size, Script script = {}) : script_(std::move(script)) {
    limits_ = {.page_tokens = 4,
               .num_pages = 256,
               .max_num_seqs = 16,
               .max_chunk_tokens = 8,
               .max_batched_tokens = 64,
               .vocab_size = vocab_size};
  }

  const ExecutorLimits& limits() const override { return limits_; }

  void Launch(const Batch& batch) override {
    rows_ = batch.rows;
    if (batch.num_edited_rows == 0) LaunchSampling({});
  }
  void LaunchSampling(const RowEdits& edits) override { result_ = Run(edits); }
  absl::StatusOr<std::vector<SampledToken>> Collect() override { return std::move(result_); }
  bool is_lost() const override { return is_lost_; }

  KvTraffic DecodeTraffic(int64_t num_tokens) const override {
    return {.read_bytes = 10, .dense_bytes = 10 * num_tokens};
  }

  void set_script(Script script) {
    const std::lock_guard lock(mutex_);
    script_ = std::move(script);
  }
  void set_step_time(std::chrono::microseconds step_time) {
    const std::lock_guard lock(mutex_);
    step_time_ = step_time;
  }
  // Every step from now on fails with this, until it is OK again.
  void set_error(absl::Status error) {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
  }
  // As set_error, and the executor is lost with it.
  void set_lost(absl::Status error) {
    set_error(std::move(error));
    is_lost_ = true;
  }
  // While paused, a step that begins does not return.
  void set_paused(bool paused) {
    {
      const std::lock_guard lock(mutex_);
      paused_ = paused;
    }
    changed_.notify_all();
  }

 private:
  absl::StatusOr<std::vector<SampledToken>> Run(const RowEdits& edits) {
    Script script;
    absl::Status error;
    std::chrono::microseconds step_time;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !paused_; });
      script = script_;
      error = error_;
      step_time = step_time_;
    }
    std::this_thread::sleep_for(step_time);
    if (!error.ok()) return error;
    std::vector<SampledToken> sampled;
    for (const SampleRow& row : rows_) {
      sampled.push_back(Sample(script, row));
      const int32_t mask = row.edited_row < 0 ? -1 : edits.mask_of[row.edited_row];
      if (mask < 0) continue;
      Restrict(*edits.masks[mask], NumMaskWords(limits_.vocab_size), &sampled.back().token);
    }
    return sampled;
  }

  static void Restrict(TokenMask& mask, int64_t num_words, int32_t* token) {
    std::vector<int32_t> words(num_words);
    mask.CopyTo(words);
    const auto allows = [&](int32_t id) {
      return (static_cast<uint32_t>(words[id / 32]) >> (id % 32) & 1) != 0;
    };
    if (allows(*token)) return;
    for (*token = 0; !allows(*token);) ++*token;
  }

  // The token's log-probability is minus its position / 8; alternatives are tokens 0, 1, 2, ...
  static SampledToken Sample(const Script& script, const SampleRow& row) {
    SampledToken sampled{.token = script ? script(row) : 'x'};
    if (row.num_top_logprobs >= 0) sampled.logprob = -static_cast<float>(row.position) / 8;
    for (int32_t rank = 0; rank < row.num_top_logprobs; ++rank) {
      sampled.top_logprobs.push_back({.token = rank, .logprob = static_cast<float>(-rank)});
    }
    return sampled;
  }

  ExecutorLimits limits_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Script script_;
  absl::Status error_;
  std::chrono::microseconds step_time_{0};
  bool paused_ = false;
  std::atomic<bool> is_lost_ = false;
  std::vector<SampleRow> rows_;  // of the step that was launched
  absl::StatusOr<std::vector<SampledToken>> result_ = std::vector<SampledToken>();
};

}  // namespace nsa
