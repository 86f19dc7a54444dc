#pragma once
// A model that costs nothing, for measuring what the server adds. Every token of a step is the time
// at which the step was done, in microseconds modulo 2^24, and its text says so in hexadecimal: a
// client on the same machine can tell how long each token was under way.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/executor.h"
#include "engine/text/tokenizer.h"

namespace nsa::bench {

inline constexpr int32_t kStampBits = 24;

// "00abcd ": kStampBits / 4 digits and a space.
class StampTokenizer : public Tokenizer {
 public:
  // One token per byte.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override;
  std::string Decode(const std::vector<int32_t>& tokens) const override;
  std::string TokenBytes(int32_t token) const override;
  int64_t max_token_bytes() const override { return kStampBits / 4 + 1; }
  int32_t vocab_size() const override { return 1 << kStampBits; }
  int32_t bos_token() const override { return -1; }
  int32_t eos_token() const override { return -1; }
  bool adds_leading_space() const override { return false; }
  const std::vector<ControlToken>& control_tokens() const override { return control_tokens_; }

 private:
  const std::vector<ControlToken> control_tokens_{};  // none
};

class StampExecutor : public Executor {
 public:
  // Steps are done no sooner than `step_time` after one another: the thread sleeps.
  StampExecutor(int64_t max_num_seqs, std::chrono::microseconds step_time);

  const ExecutorLimits& limits() const override { return limits_; }
  void Launch(const Batch& batch) override;
  void LaunchSampling(const RowEdits& /*edits*/) override {}
  absl::StatusOr<std::vector<SampledToken>> Collect() override;
  KvTraffic DecodeTraffic(int64_t /*num_tokens*/) const override { return {}; }

 private:
  using Clock = std::chrono::steady_clock;

  ExecutorLimits limits_;
  const std::chrono::microseconds step_time_;
  Clock::time_point next_step_ = Clock::now();
  int64_t num_rows_ = 0;  // of the step that was launched
};

}  // namespace nsa::bench
