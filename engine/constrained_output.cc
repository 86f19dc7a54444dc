#include "engine/constrained_output.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace nsa {
namespace {

void Clear(int32_t token, std::span<uint32_t> words) {
  const auto word = static_cast<size_t>(token) / 32;
  if (word < words.size()) words[word] &= ~(1U << (token % 32));
}

bool IsEmpty(std::span<const uint32_t> words) {
  return std::all_of(words.begin(), words.end(), [](uint32_t word) { return word == 0; });
}

}  // namespace

ConstrainedOutput::ConstrainedOutput(std::shared_ptr<const CompiledConstraint> constraint,
                                     std::span<const int32_t> stop_token_ids, int64_t min_tokens)
    : constraint_(std::move(constraint)),
      held_back_(stop_token_ids.begin(), stop_token_ids.end()),
      min_tokens_(min_tokens),
      state_(constraint_),
      words_(constraint_->tokens().num_mask_words()) {
  const std::vector<int32_t>& ends = constraint_->tokens().eos_tokens();
  held_back_.insert(held_back_.end(), ends.begin(), ends.end());
}

ConstrainedOutput::Progress ConstrainedOutput::Advance(int32_t token) {
  if (!state_.Advance(token)) return Progress::kNotAllowed;
  ++num_tokens_;
  return state_.is_complete() ? Progress::kComplete : Progress::kOpen;
}

bool ConstrainedOutput::TakeReadyMask() {
  if (!state_.FillReadyMask(words_)) return false;
  status_ = CheckMask();
  return true;
}

void ConstrainedOutput::ExpectMask() {
  const std::lock_guard lock(mutex_);
  NSA_CHECK(mask_state_ == MaskState::kThere);
  mask_state_ = MaskState::kExpected;
}

void ConstrainedOutput::ComputeMask() {
  {
    const std::lock_guard lock(mutex_);
    if (mask_state_ != MaskState::kExpected) return;
    mask_state_ = MaskState::kBegun;
  }
  status_ = FillMask();
  {
    const std::lock_guard lock(mutex_);
    mask_state_ = MaskState::kThere;
  }
  mask_arrived_.notify_all();
}

absl::Status ConstrainedOutput::FillMask() {
  if (absl::Status status = state_.FillMask(words_); !status.ok()) {
    return absl::InvalidArgumentError(status.message());
  }
  return CheckMask();
}

// What is still to be done with the words of the constraint.
absl::Status ConstrainedOutput::CheckMask() {
  if (IsEmpty(words_)) {
    return absl::InvalidArgumentError(
        "the model's vocabulary has no token for what the constraint asks for next");
  }
  if (num_tokens_ < min_tokens_) HoldBackStopTokens();
  return absl::OkStatus();
}

void ConstrainedOutput::HoldBackStopTokens() {
  std::vector<uint32_t> words = words_;
  for (const int32_t token : held_back_) Clear(token, words);
  if (!IsEmpty(words)) words_ = std::move(words);
}

void ConstrainedOutput::AwaitMask() {
  ComputeMask();
  std::unique_lock lock(mutex_);
  mask_arrived_.wait(lock, [this] { return mask_state_ == MaskState::kThere; });
}

void ConstrainedOutput::CopyTo(std::span<int32_t> words) {
  AwaitMask();
  NSA_CHECK_LE(words_.size(), words.size());
  if (!status_.ok()) {
    std::fill(words.begin(), words.end(), -1);
    return;
  }
  const auto end = std::transform(words_.begin(), words_.end(), words.begin(),
                                  [](uint32_t word) { return static_cast<int32_t>(word); });
  std::fill(end, words.end(), 0);
}

absl::Status ConstrainedOutput::MaskStatus() {
  AwaitMask();
  return status_;
}

}  // namespace nsa
