#pragma once
// FakeExecutor: an executor without a model. The next token is a hash of every token before it, so
// one that was computed from a wrong prefix shows. It reads that prefix from where a model would
// read it: from token ids that earlier steps stored in the pages and, where the limits have a
// lookback, the recent pages of the sequence.
// Where a mask allows some tokens only, it is one of them. The blocks of a traced row are one
// number, the position of its token. A step runs when it is collected; one that was launched ahead
// then finds its tokens in the rows of the step before, as on a GPU.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "engine/executor.h"

namespace nsa {

class FakeExecutor : public Executor {
 public:
  static constexpr int64_t kLookbackTokens = 4;  // the one it has if it has any

  explicit FakeExecutor(const ExecutorLimits& limits, int max_steps_ahead = 0);

  const ExecutorLimits& limits() const override { return limits_; }
  int max_steps_ahead() const override { return max_steps_ahead_; }
  void Launch(const Batch& batch) override;
  void LaunchSampling(const RowEdits& edits) override;
  absl::StatusOr<std::vector<SampledToken>> Collect() override;
  bool is_lost() const override { return is_lost_; }
  KvTraffic DecodeTraffic(int64_t num_tokens) const override;

  // Called in each step, after the step's tokens are stored; its error becomes the step's, and what
  // the step stored is lost. Set it before the first step.
  std::function<absl::Status(const Batch&)> on_step;
  // Says of each sampled row whether its logits are finite; unset: they are.
  std::function<bool(const SampleRow&)> is_finite;

  // Every step from now on fails, and the executor is lost.
  void Lose() { is_lost_ = true; }

  // What was wrong with the first malformed batch; empty if none was.
  const std::string& violation() const { return violation_; }

  // Steps that were launched and have not ended; for any thread.
  int num_in_flight() const { return num_in_flight_; }

 private:
  // A batch and its edits; the masks last no longer than LaunchSampling.
  struct Step {
    Batch batch;
    RowEdits edits;
    std::vector<std::vector<int32_t>> masks;
    bool awaits_edits = false;
  };
  void Violate(const std::string& what);
  absl::StatusOr<std::vector<SampledToken>> Run(const Step& step);
  SampledToken SampleRowOf(const Step& step, const Batch& batch, int64_t row) const;
  Batch Resolve(const Batch& batch);
  void CopyPages(const Batch& batch);
  void Store(const Batch& batch);
  void Spoil(const Batch& batch);
  std::vector<int32_t> ReadPages(const Batch& batch, int64_t token_idx) const;
  int64_t RecentRow(const Batch& batch, int64_t seq, int64_t position) const;
  std::vector<int32_t> ReadRecent(const Batch& batch, int64_t token_idx) const;

  const ExecutorLimits limits_;
  const int max_steps_ahead_;
  std::vector<int32_t> pages_;         // [num_pages, page_tokens] token ids
  std::vector<int32_t> recent_pages_;  // [num_recent_pages, page_tokens] likewise
  std::deque<Step> launched_;          // oldest first
  std::atomic<int> num_in_flight_ = 0;
  std::vector<int32_t> last_tokens_;  // by row of the step collected last
  bool is_lost_ = false;
  std::string violation_;
};

// What breaks the contract of Batch, or nothing.
std::string FindViolation(const Batch& batch, const ExecutorLimits& limits);

// The token that follows `prefix`, as a row of FakeExecutor samples it.
SampledToken FakeSample(absl::Span<const int32_t> prefix, absl::Span<const LogitEdit> edits,
                        const SampleRow& row, int64_t vocab_size);

// The token that FakeExecutor takes in place of `token`, of those that the mask's words allow.
int32_t FakeChoice(int32_t token, absl::Span<const int32_t> mask);

// What FakeExecutor makes of the request: all tokens up to a stop token or max_tokens.
std::vector<int32_t> FakeContinuation(const Request& request, int64_t vocab_size);

}  // namespace nsa
