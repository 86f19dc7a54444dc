#include "engine/constraint/compiled_constraint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa {
namespace {

using constraint::Automaton;
using constraint::AutomatonFailure;

// Old automaton, current one, a new one: the third failure is final.
constexpr int kMaxAttempts = 3;

absl::Status TooComplex(const ConstraintLimits& limits) {
  return absl::InvalidArgumentError(
      absl::StrCat("the constraint is too ambiguous: more than ", limits.max_parallel_states,
                   " readings at once or ", limits.max_mask_work, " for one token"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CompiledConstraint>> CompiledConstraint::Create(
    constraint::Grammar grammar, std::shared_ptr<const TokenTable> tokens,
    const ConstraintLimits& limits, absl::Time deadline) {
  std::shared_ptr<CompiledConstraint> compiled(
      new CompiledConstraint(std::move(grammar), std::move(tokens), limits));
  NSA_RETURN_IF_ERROR(compiled->WarmUp(deadline));
  return std::shared_ptr<const CompiledConstraint>(std::move(compiled));
}

CompiledConstraint::CompiledConstraint(constraint::Grammar grammar,
                                       std::shared_ptr<const TokenTable> tokens,
                                       const ConstraintLimits& limits)
    : grammar_(std::move(grammar)),
      tokens_(std::move(tokens)),
      limits_(limits),
      current_(NewEpoch()) {}

std::shared_ptr<CompiledConstraint::Epoch> CompiledConstraint::NewEpoch() const {
  return std::make_shared<Epoch>(&grammar_, tokens_.get(), limits_);
}

// States come in the order in which outputs reach them, so the first masks are the likeliest.
absl::Status CompiledConstraint::WarmUp(absl::Time deadline) {
  const std::lock_guard lock(mutex_);
  Automaton& automaton = current_->automaton;
  if (automaton.start() == Automaton::kFailed) return TooComplex(limits_);
  deadline = std::min(deadline, absl::Now() + limits_.warm_up_time);
  for (int32_t state = Automaton::kDead + 1; state < automaton.num_states(); ++state) {
    // Half of the room is left to what outputs really reach.
    if (current_->memory_bytes() > limits_.max_cache_bytes / 2 || absl::Now() > deadline) break;
    bool is_done = current_->masks.Prepare(state);
    if (is_done) automaton.StartWork();
    for (int32_t i = 0; i < grammar_.num_byte_classes() && is_done; ++i) {
      is_done = automaton.StepClass(state, i) != Automaton::kFailed;
    }
    if (is_done) continue;
    if (automaton.failure() == AutomatonFailure::kAmbiguous) return TooComplex(limits_);
    break;
  }
  return absl::OkStatus();
}

int64_t CompiledConstraint::memory_bytes() const {
  const std::lock_guard lock(mutex_);
  return grammar_.memory_bytes() + current_->memory_bytes();
}

int64_t CompiledConstraint::num_automaton_states() const {
  const std::lock_guard lock(mutex_);
  return current_->automaton.num_states();
}

CompiledConstraint::Place CompiledConstraint::Start() const {
  const std::lock_guard lock(mutex_);
  return {current_, current_->automaton.start()};
}

// Moves the place to an automaton with room. False: there is none.
bool CompiledConstraint::MakeRoom(Place* place) const {
  if (place->epoch->automaton.failure() != AutomatonFailure::kFull) return false;
  if (place->epoch == current_) current_ = NewEpoch();
  current_->automaton.StartWork();
  const int32_t state = current_->automaton.Import(place->epoch->automaton, place->state);
  if (state == Automaton::kFailed) return false;
  *place = {current_, state};
  return true;
}

CompiledConstraint::Outcome CompiledConstraint::Advance(int32_t token, Place* place) const {
  const std::lock_guard lock(mutex_);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    Automaton& automaton = place->epoch->automaton;
    automaton.StartWork();
    int32_t state = place->state;
    for (const char byte : tokens_->bytes(token)) {
      state = automaton.Step(state, static_cast<uint8_t>(byte));
      if (state == Automaton::kDead) return Outcome::kNotAllowed;
      if (state == Automaton::kFailed) break;
    }
    if (state != Automaton::kFailed) {
      place->state = state;
      return Outcome::kDone;
    }
    if (!MakeRoom(place)) break;
  }
  return Outcome::kTooComplex;
}

CompiledConstraint::Outcome CompiledConstraint::FillMask(Place* place,
                                                         std::span<uint32_t> words) const {
  const std::lock_guard lock(mutex_);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    if (place->epoch->masks.Fill(place->state, words)) return Outcome::kDone;
    if (!MakeRoom(place)) break;
  }
  return Outcome::kTooComplex;
}

bool CompiledConstraint::FillReadyMask(const Place& place, std::span<uint32_t> words) const {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  return lock.owns_lock() && place.epoch->masks.is_ready(place.state) &&
         place.epoch->masks.Fill(place.state, words);
}

bool CompiledConstraint::is_accepting(const Place& place) const {
  const std::lock_guard lock(mutex_);
  return place.epoch->automaton.is_accepting(place.state);
}

bool CompiledConstraint::can_continue(const Place& place) const {
  const std::lock_guard lock(mutex_);
  return place.epoch->automaton.can_continue(place.state);
}

ConstraintState::ConstraintState(std::shared_ptr<const CompiledConstraint> constraint)
    : constraint_(std::move(constraint)), place_(constraint_->Start()) {}

bool ConstraintState::Advance(int32_t token) {
  const TokenTable& tokens = constraint_->tokens();
  if (has_ended_ || token < 0 || token >= tokens.vocab_size()) return false;
  if (tokens.is_eos(token)) {
    has_ended_ = is_accepting();
    return has_ended_;
  }
  if (tokens.bytes(token).empty()) return false;
  return constraint_->Advance(token, &place_) == CompiledConstraint::Outcome::kDone;
}

absl::Status ConstraintState::FillMask(std::span<uint32_t> words) {
  if (has_ended_) {
    std::fill(words.begin(), words.end(), 0);
    return absl::OkStatus();
  }
  if (constraint_->FillMask(&place_, words) == CompiledConstraint::Outcome::kDone) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      "the constraint became too ambiguous for its limits at this place of the output");
}

bool ConstraintState::FillReadyMask(std::span<uint32_t> words) const {
  return !has_ended_ && constraint_->FillReadyMask(place_, words);
}

bool ConstraintState::is_accepting() const { return constraint_->is_accepting(place_); }

bool ConstraintState::is_complete() const {
  return has_ended_ || (is_accepting() && !constraint_->can_continue(place_));
}

}  // namespace nsa
