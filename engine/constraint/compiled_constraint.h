#pragma once
// CompiledConstraint: what an output may be, ready for use; made by ConstraintCompiler.
// ConstraintState: where one output stands in it.

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/byte_budget.h"
#include "engine/constraint/automaton.h"
#include "engine/constraint/constraint_spec.h"
#include "engine/constraint/grammar.h"
#include "engine/constraint/mask_cache.h"
#include "engine/constraint/token_table.h"

namespace nsa {

// What it says never changes. Its automaton and masks grow as outputs reach new places, behind a
// mutex and within ConstraintLimits::max_cache_bytes and what is left of the memory of all: a full
// automaton begins anew and takes the places of all outputs along. Thread-safe; shared by all
// outputs of one spec.
class CompiledConstraint {
 public:
  // The grammar must be finished. Prepares masks until warm_up_time or `deadline` is over.
  // INVALID_ARGUMENT: an output would have too many readings at once.
  static absl::StatusOr<std::shared_ptr<const CompiledConstraint>> Create(
      constraint::Grammar grammar, std::shared_ptr<const TokenTable> tokens,
      const ConstraintLimits& limits, absl::Time deadline, std::shared_ptr<ByteBudget> memory);

  CompiledConstraint(const CompiledConstraint&) = delete;
  CompiledConstraint& operator=(const CompiledConstraint&) = delete;

  // Before the first output: takes what it has grown to, and kGrowthBytes, from the memory of all
  // until its end. False: too little is left.
  static constexpr int64_t kGrowthBytes = int64_t{1} << 20;
  bool TakeMemory() const ABSL_LOCKS_EXCLUDED(mutex_);

  const TokenTable& tokens() const { return *tokens_; }
  int64_t memory_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t num_grammar_states() const { return grammar_.num_states(); }
  int64_t num_automaton_states() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class ConstraintState;

  // An automaton and its masks, from one beginning to the next.
  struct Epoch {
    Epoch(const constraint::Grammar* grammar, const TokenTable* tokens,
          const ConstraintLimits& limits)
        : automaton(grammar, limits), masks(&automaton, tokens, limits.max_cache_bytes / 2) {}
    constraint::Automaton automaton;
    constraint::MaskCache masks;
    int64_t memory_bytes() const { return automaton.memory_bytes() + masks.memory_bytes(); }
  };
  using OutputId = uint64_t;
  enum class Outcome : uint8_t { kDone, kNotAllowed, kTooComplex };

  CompiledConstraint(constraint::Grammar grammar, std::shared_ptr<const TokenTable> tokens,
                     const ConstraintLimits& limits, std::shared_ptr<ByteBudget> memory);
  absl::Status WarmUp(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  OutputId AddOutput() const ABSL_LOCKS_EXCLUDED(mutex_);  // at the start
  OutputId CopyOutput(OutputId output) const ABSL_LOCKS_EXCLUDED(mutex_);
  void RemoveOutput(OutputId output) const ABSL_LOCKS_EXCLUDED(mutex_);
  Outcome Advance(int32_t token, OutputId output) const ABSL_LOCKS_EXCLUDED(mutex_);
  Outcome FillMask(OutputId output, std::span<uint32_t> words) const ABSL_LOCKS_EXCLUDED(mutex_);
  bool FillReadyMask(OutputId output, std::span<uint32_t> words) const ABSL_LOCKS_EXCLUDED(mutex_);
  bool is_accepting(OutputId output) const ABSL_LOCKS_EXCLUDED(mutex_);
  bool can_continue(OutputId output) const ABSL_LOCKS_EXCLUDED(mutex_);
  std::unique_ptr<Epoch> NewEpoch() const;
  void BeginAnew() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MakeRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HoldMemory() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t NumBytes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const constraint::Grammar grammar_;
  const std::shared_ptr<const TokenTable> tokens_;
  const ConstraintLimits limits_;
  // Guards the contents of the epoch too. Not absl::Mutex: ThreadSanitizer cannot see into a
  // prebuilt Abseil.
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Epoch> current_ ABSL_GUARDED_BY(mutex_);
  // Where each output stands in it; Automaton::kFailed: nowhere, it had no room.
  mutable absl::flat_hash_map<OutputId, int32_t> states_ ABSL_GUARDED_BY(mutex_);
  mutable OutputId last_output_ ABSL_GUARDED_BY(mutex_) = 0;
  mutable ByteShare share_ ABSL_GUARDED_BY(mutex_);  // of the memory of all
};

// One per output; copied when an output forks. Not thread-safe itself; copies are independent.
class ConstraintState {
 public:
  explicit ConstraintState(std::shared_ptr<const CompiledConstraint> constraint);
  ConstraintState(const ConstraintState& other);
  ConstraintState& operator=(const ConstraintState&) = delete;
  ~ConstraintState();

  // Takes the next token of the output. False: it is not allowed, and nothing changes. An
  // end-of-sequence token is allowed where is_accepting(); nothing is allowed after it.
  bool Advance(int32_t token);

  // Sets the bits of the tokens that Advance would take, token t is bit t % 32 of word t / 32, and
  // clears all others. `words` must cover the vocabulary; more of them become 0. No bit is set
  // after the end, or where the vocabulary cannot spell what must follow. RESOURCE_EXHAUSTED: the
  // output has reached a place where the constraint is too ambiguous for its limits; the words are
  // as they were.
  absl::Status FillMask(std::span<uint32_t> words);

  // The same if it is only a copy and nobody else is at work on this constraint; else false, and
  // the words are as they were.
  bool FillReadyMask(std::span<uint32_t> words) const;

  bool has_ended() const { return has_ended_; }
  // The output so far satisfies the constraint.
  bool is_accepting() const;
  // The output satisfies the constraint and nothing but its end may follow.
  bool is_complete() const;

 private:
  const std::shared_ptr<const CompiledConstraint> constraint_;
  const CompiledConstraint::OutputId output_;
  bool has_ended_ = false;
};

}  // namespace nsa
