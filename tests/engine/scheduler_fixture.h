#pragma once
// SchedulerTest: a scheduler whose steps take a second each and sample the same token always.

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/scheduler.h"
#include "gtest/gtest.h"

namespace nsa {

inline constexpr int32_t kToken = 1;  // the one that every step samples

class SchedulerTest : public testing::Test {
 protected:
  void Start(ExecutorLimits limits) {
    limits.vocab_size = 10;
    scheduler_ = std::make_unique<Scheduler>(limits);
  }

  Sequence* Add(int64_t num_prompt_tokens, int64_t max_tokens,
                absl::Time deadline = absl::InfiniteFuture(), int32_t priority = 0) {
    Request request{.id = sequences_.size(),
                    .prompt = std::vector<int32_t>(num_prompt_tokens, 2),
                    .max_tokens = max_tokens};
    request.deadline = deadline;
    request.priority = priority;
    sequences_.push_back(std::make_unique<Sequence>(std::move(request), nullptr, now_));
    scheduler_->Enqueue(sequences_.back().get());
    return sequences_.back().get();
  }

  // Plans and commits one step; the plan as (request id, tokens) pairs.
  std::vector<std::pair<RequestId, int64_t>> Step() {
    plan_ = scheduler_->Plan(now_);
    scheduler_->Launched(plan_);
    now_ += absl::Seconds(1);
    std::vector<std::pair<RequestId, int64_t>> chunks;
    int64_t num_tokens = 0;
    for (const ScheduledChunk& chunk : plan_.chunks) {
      chunks.emplace_back(chunk.sequence->request.id, chunk.num_tokens);
      num_tokens += chunk.num_tokens;
      scheduler_->Commit(chunk, chunk.samples ? std::optional(kToken) : std::nullopt);
    }
    EXPECT_EQ(plan_.num_tokens, num_tokens);
    return chunks;
  }

  absl::Time now_ = absl::FromUnixSeconds(100);
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
};

inline constexpr ExecutorLimits kRoomy{.page_tokens = 4,
                                       .num_pages = 100,
                                       .max_num_seqs = 10,
                                       .max_chunk_tokens = 8,
                                       .max_batched_tokens = 20};

}  // namespace nsa
