#pragma once
// ConstrainedOutput: where one sequence's output stands in its constraint, and which tokens may
// come next.

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "engine/batch.h"
#include "engine/constraint/compiled_constraint.h"

namespace nsa {

// The engine thread owns it, but for the time from ExpectMask until the mask is there: then the
// thread that is first to ask computes it, and the engine thread only asks (CopyTo, MaskStatus).
class ConstrainedOutput : public TokenMask {
 public:
  // `stop_token_ids` are held back among the first min_tokens, as are the constraint's end tokens;
  // where it allows nothing else, it wins.
  ConstrainedOutput(std::shared_ptr<const CompiledConstraint> constraint,
                    std::span<const int32_t> stop_token_ids, int64_t min_tokens);

  enum class Progress : uint8_t { kOpen, kComplete, kNotAllowed };
  // Takes the next token of the output. kComplete: nothing may follow it. kNotAllowed: it has no
  // place in the constraint; the output is as it was.
  Progress Advance(int32_t token);
  // True for a token that ends the output and has no text.
  bool is_end(int32_t token) const { return constraint_->tokens().is_eos(token); }

  // Takes the mask of the next token if that is only a copy. False: it has to be computed.
  bool TakeReadyMask();

  // The mask of the next token is to be computed, by any thread.
  void ExpectMask();
  // Computes the mask that is expected, unless another thread has begun.
  void ComputeMask();

  // Both compute the mask that is expected, or wait for the thread that has begun. If there is
  // none, all tokens are allowed, so that the row can be sampled, and the status says why:
  // INVALID_ARGUMENT.
  void CopyTo(std::span<int32_t> words) override;
  absl::Status MaskStatus();

  const CompiledConstraint& constraint() const { return *constraint_; }

 private:
  enum class MaskState : uint8_t { kThere, kExpected, kBegun };

  void AwaitMask();
  absl::Status FillMask();
  absl::Status CheckMask();
  void HoldBackStopTokens();

  const std::shared_ptr<const CompiledConstraint> constraint_;
  std::vector<int32_t> held_back_;  // among the first min_tokens_
  const int64_t min_tokens_;
  ConstraintState state_;
  int64_t num_tokens_ = 0;
  std::vector<uint32_t> words_;
  absl::Status status_;

  std::mutex mutex_;
  std::condition_variable mask_arrived_;
  MaskState mask_state_ ABSL_GUARDED_BY(mutex_) = MaskState::kThere;
};

}  // namespace nsa
