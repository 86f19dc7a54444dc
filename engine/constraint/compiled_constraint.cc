#include "engine/constraint/compiled_constraint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa {
namespace {

using constraint::Automaton;
using constraint::AutomatonFailure;

// In the automaton that is there and in a new one.
constexpr int kMaxAttempts = 2;

absl::Status TooComplex(const ConstraintLimits& limits) {
  return absl::InvalidArgumentError(
      absl::StrCat("the constraint is too ambiguous: more than ", limits.max_parallel_states,
                   " readings at once or ", limits.max_mask_work, " for one token"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CompiledConstraint>> CompiledConstraint::Create(
    constraint::Grammar grammar, std::shared_ptr<const TokenTable> tokens,
    const ConstraintLimits& limits, absl::Time deadline, std::shared_ptr<ByteBudget> memory) {
  std::shared_ptr<CompiledConstraint> compiled(
      new CompiledConstraint(std::move(grammar), std::move(tokens), limits, std::move(memory)));
  NSA_RETURN_IF_ERROR(compiled->WarmUp(deadline));
  return std::shared_ptr<const CompiledConstraint>(std::move(compiled));
}

CompiledConstraint::CompiledConstraint(constraint::Grammar grammar,
                                       std::shared_ptr<const TokenTable> tokens,
                                       const ConstraintLimits& limits,
                                       std::shared_ptr<ByteBudget> memory)
    : grammar_(std::move(grammar)),
      tokens_(std::move(tokens)),
      limits_(limits),
      current_(NewEpoch()),
      share_(std::move(memory)) {}

std::unique_ptr<CompiledConstraint::Epoch> CompiledConstraint::NewEpoch() const {
  return std::make_unique<Epoch>(&grammar_, tokens_.get(), limits_);
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
  // What outputs add moves nothing that is there: that takes up to milliseconds of a step.
  current_->automaton.Reserve(2 * automaton.num_states());
  current_->masks.Reserve(2 * automaton.num_states());
  return absl::OkStatus();
}

bool CompiledConstraint::TakeMemory() const {
  const std::lock_guard lock(mutex_);
  return share_.GrowTo(NumBytes() + kGrowthBytes);
}

int64_t CompiledConstraint::NumBytes() const {
  return grammar_.memory_bytes() + current_->memory_bytes();
}

int64_t CompiledConstraint::memory_bytes() const {
  const std::lock_guard lock(mutex_);
  return NumBytes();
}

int64_t CompiledConstraint::num_automaton_states() const {
  const std::lock_guard lock(mutex_);
  return current_->automaton.num_states();
}

CompiledConstraint::OutputId CompiledConstraint::AddOutput() const {
  const std::lock_guard lock(mutex_);
  states_[++last_output_] = current_->automaton.start();
  return last_output_;
}

CompiledConstraint::OutputId CompiledConstraint::CopyOutput(OutputId output) const {
  const std::lock_guard lock(mutex_);
  const int32_t state = states_.at(output);
  states_[++last_output_] = state;
  return last_output_;
}

void CompiledConstraint::RemoveOutput(OutputId output) const {
  const std::lock_guard lock(mutex_);
  states_.erase(output);
}

void CompiledConstraint::BeginAnew() const {
  const std::unique_ptr<Epoch> old = std::exchange(current_, NewEpoch());
  for (auto& [output, state] : states_) {
    if (state == Automaton::kFailed) continue;
    current_->automaton.StartWork();
    state = current_->automaton.Import(old->automaton, state);
  }
}

// After a failure. False: it was not for want of room.
bool CompiledConstraint::MakeRoom() const {
  if (current_->automaton.failure() != AutomatonFailure::kFull) return false;
  BeginAnew();
  return true;
}

// After anything that may have grown. What the memory of all has no room for is given up.
void CompiledConstraint::HoldMemory() const {
  if (!share_.GrowTo(NumBytes())) BeginAnew();
}

CompiledConstraint::Outcome CompiledConstraint::Advance(int32_t token, OutputId output) const {
  const std::lock_guard lock(mutex_);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    Automaton& automaton = current_->automaton;
    automaton.StartWork();
    int32_t state = states_.at(output);
    if (state == Automaton::kFailed) break;
    for (const char byte : tokens_->bytes(token)) {
      state = automaton.Step(state, static_cast<uint8_t>(byte));
      if (state == Automaton::kDead) return Outcome::kNotAllowed;
      if (state == Automaton::kFailed) break;
    }
    if (state != Automaton::kFailed) {
      states_[output] = state;
      HoldMemory();
      return Outcome::kDone;
    }
    if (!MakeRoom()) break;
  }
  return Outcome::kTooComplex;
}

CompiledConstraint::Outcome CompiledConstraint::FillMask(OutputId output,
                                                         std::span<uint32_t> words) const {
  const std::lock_guard lock(mutex_);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const int32_t state = states_.at(output);
    if (state == Automaton::kFailed) break;
    if (current_->masks.Fill(state, words)) {
      HoldMemory();
      return Outcome::kDone;
    }
    if (!MakeRoom()) break;
  }
  return Outcome::kTooComplex;
}

bool CompiledConstraint::FillReadyMask(OutputId output, std::span<uint32_t> words) const {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  const int32_t state = states_.at(output);
  return state != Automaton::kFailed && current_->masks.is_ready(state) &&
         current_->masks.Fill(state, words);
}

bool CompiledConstraint::is_accepting(OutputId output) const {
  const std::lock_guard lock(mutex_);
  const int32_t state = states_.at(output);
  return state != Automaton::kFailed && current_->automaton.is_accepting(state);
}

bool CompiledConstraint::can_continue(OutputId output) const {
  const std::lock_guard lock(mutex_);
  const int32_t state = states_.at(output);
  return state == Automaton::kFailed || current_->automaton.can_continue(state);
}

ConstraintState::ConstraintState(std::shared_ptr<const CompiledConstraint> constraint)
    : constraint_(std::move(constraint)), output_(constraint_->AddOutput()) {}

ConstraintState::ConstraintState(const ConstraintState& other)
    : constraint_(other.constraint_),
      output_(constraint_->CopyOutput(other.output_)),
      has_ended_(other.has_ended_) {}

ConstraintState::~ConstraintState() { constraint_->RemoveOutput(output_); }

bool ConstraintState::Advance(int32_t token) {
  const TokenTable& tokens = constraint_->tokens();
  if (has_ended_ || token < 0 || token >= tokens.vocab_size()) return false;
  if (tokens.is_eos(token)) {
    has_ended_ = is_accepting();
    return has_ended_;
  }
  if (tokens.bytes(token).empty()) return false;
  return constraint_->Advance(token, output_) == CompiledConstraint::Outcome::kDone;
}

absl::Status ConstraintState::FillMask(std::span<uint32_t> words) {
  if (has_ended_) {
    std::fill(words.begin(), words.end(), 0);
    return absl::OkStatus();
  }
  if (constraint_->FillMask(output_, words) == CompiledConstraint::Outcome::kDone) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      "the constraint became too ambiguous for its limits at this place of the output");
}

bool ConstraintState::FillReadyMask(std::span<uint32_t> words) const {
  return !has_ended_ && constraint_->FillReadyMask(output_, words);
}

bool ConstraintState::is_accepting() const { return constraint_->is_accepting(output_); }

bool ConstraintState::is_complete() const {
  return has_ended_ || (is_accepting() && !constraint_->can_continue(output_));
}

}  // namespace nsa
