#pragma once
// Automaton: a grammar made deterministic, state by state as they are asked for. A state is the set
// of all readings of the bytes so far: grammar state and stack of open calls. Not thread-safe.

#include <cstdint>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "engine/constraint/constraint_spec.h"
#include "engine/constraint/grammar.h"

namespace nsa::constraint {

enum class AutomatonFailure : uint8_t {
  kNone,
  kFull,       // the memory limit is reached
  kAmbiguous,  // too many readings in one state, or too much work since StartWork()
};

class Automaton {
 public:
  static constexpr int32_t kDead = 0;     // no output begins like this
  static constexpr int32_t kFailed = -1;  // see failure()

  // `grammar`, finished, must outlive it.
  Automaton(const Grammar* grammar, const ConstraintLimits& limits);

  int32_t start() const { return start_; }
  // The state after one more byte, or kFailed.
  int32_t Step(int32_t state, uint8_t byte) { return StepClass(state, grammar_->byte_class(byte)); }
  int32_t StepClass(int32_t state, int32_t byte_class) {
    const int32_t next = next_[Slot(state, byte_class)];
    return next != kUnknown ? next : ComputeStep(state, byte_class);
  }
  // True if the bytes so far are a whole output.
  bool is_accepting(int32_t state) const { return states_[state].is_accepting; }
  // True if some byte may follow.
  bool can_continue(int32_t state) const { return states_[state].num_readings > 0; }
  // The same state in this automaton, of the same grammar; or kFailed.
  int32_t Import(const Automaton& other, int32_t state);

  // Up to `num_states` of them are added without moving those that are there.
  void Reserve(int32_t num_states);

  // Begins a new allowance of max_mask_work.
  void StartWork();
  AutomatonFailure failure() const { return failure_; }
  int32_t num_states() const { return static_cast<int32_t>(states_.size()); }
  int64_t memory_bytes() const { return memory_bytes_; }
  const Grammar& grammar() const { return *grammar_; }

 private:
  static constexpr int32_t kUnknown = -2;
  static constexpr int32_t kEmptyStack = 0;

  struct Frame {
    int32_t parent = 0;
    StateId return_state = 0;
    int32_t depth = 0;  // nesting rules in the stack
  };
  struct Reading {
    StateId state = 0;
    int32_t stack = kEmptyStack;
    bool operator==(const Reading&) const = default;
    bool operator<(const Reading& other) const {
      return std::tie(state, stack) < std::tie(other.state, other.stack);
    }
  };
  struct State {
    std::vector<Reading> readings;  // ascending, each with bytes to read
    int32_t num_readings = 0;
    bool is_accepting = false;
  };

  size_t Slot(int32_t state, int32_t byte_class) const {
    return static_cast<size_t>(state) * grammar_->num_byte_classes() + byte_class;
  }
  int32_t ComputeStep(int32_t state, int32_t byte_class);
  void Follow(const Reading& reading);
  void Expand(const Reading& reading);
  int32_t FinishState();
  int32_t AddState(std::vector<Reading> readings, bool is_accepting);
  void ExpectSteps(int32_t state);
  int32_t PushFrame(int32_t parent, StateId return_state, int32_t depth);

  const Grammar* const grammar_;
  const ConstraintLimits limits_;
  std::vector<State> states_;
  std::vector<int32_t> next_;                           // [num_states, num_byte_classes]
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // keys lie in states_' readings
  std::vector<Frame> frames_;
  // By parent, return state and depth: rules of both kinds may return to one state.
  absl::flat_hash_map<std::tuple<int32_t, StateId, int32_t>, int32_t> frame_ids_;
  int32_t start_ = kFailed;
  int64_t memory_bytes_ = 0;
  int64_t work_ = 0;
  AutomatonFailure failure_ = AutomatonFailure::kNone;

  // Of the state under construction.
  std::vector<Reading> open_;
  absl::flat_hash_set<std::pair<StateId, int32_t>> seen_;
  std::vector<Reading> found_;
  bool found_accepting_ = false;
};

}  // namespace nsa::constraint
