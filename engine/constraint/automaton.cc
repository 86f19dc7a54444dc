#include "engine/constraint/automaton.h"

#include <algorithm>

namespace nsa::constraint {
namespace {

// What a hash map keeps per entry beside the entry, roughly.
constexpr int64_t kMapOverheadBytes = 32;

// Stands for "accepting" among the readings, so that the readings alone are a state's identity.
constexpr StateId kAcceptingMark = -1;

}  // namespace

Automaton::Automaton(const Grammar* grammar, const ConstraintLimits& limits)
    : grammar_(grammar), limits_(limits) {
  frames_.push_back({});  // the empty stack
  AddState({}, /*is_accepting=*/false);
  Follow({grammar_->rule(0).start, kEmptyStack});
  start_ = FinishState();
}

void Automaton::Reserve(int32_t num_states) {
  states_.reserve(num_states);
  next_.reserve(Slot(num_states, 0));
  ids_.reserve(num_states);
}

void Automaton::StartWork() {
  work_ = 0;
  failure_ = AutomatonFailure::kNone;
}

int32_t Automaton::ComputeStep(int32_t state, int32_t byte_class) {
  const uint8_t byte = grammar_->class_example(byte_class);
  for (const Reading& reading : states_[state].readings) {
    if (reading.state == kAcceptingMark) continue;
    for (const Edge& edge : grammar_->edges(reading.state)) {
      const bool reads_byte =
          edge.kind == Edge::Kind::kBytes && edge.low <= byte && byte <= edge.high;
      if (reads_byte) Follow({edge.to, reading.stack});
    }
  }
  const int32_t next = FinishState();
  if (next != kFailed) next_[Slot(state, byte_class)] = next;
  return next;
}

// A reading that could only end by nesting too deep is no reading.
void Automaton::Follow(const Reading& reading) {
  const int32_t depth = frames_[reading.stack].depth;
  if (depth + grammar_->height(reading.state) > grammar_->max_output_nesting()) return;
  if (seen_.emplace(reading.state, reading.stack).second) open_.push_back(reading);
}

void Automaton::Expand(const Reading& reading) {
  bool reads_bytes = false;
  if (grammar_->is_accept(reading.state)) {
    if (reading.stack == kEmptyStack) {
      found_accepting_ = true;
    } else {
      const Frame& frame = frames_[reading.stack];
      Follow({frame.return_state, frame.parent});
    }
  }
  for (const Edge& edge : grammar_->edges(reading.state)) {
    switch (edge.kind) {
      case Edge::Kind::kBytes:
        reads_bytes = true;
        break;
      case Edge::Kind::kEpsilon:
        Follow({edge.to, reading.stack});
        break;
      case Edge::Kind::kCall: {
        const int32_t depth = frames_[reading.stack].depth;
        const Rule& rule = grammar_->rule(edge.rule);
        const int32_t height =
            std::max(grammar_->height(edge.to), grammar_->height(rule.start) + rule.depth);
        if (depth + height > grammar_->max_output_nesting()) break;
        Follow({rule.start, PushFrame(reading.stack, edge.to, depth + rule.depth)});
        break;
      }
    }
  }
  if (reads_bytes) found_.push_back(reading);
}

int32_t Automaton::FinishState() {
  while (!open_.empty()) {
    const Reading reading = open_.back();
    open_.pop_back();
    ++work_;
    Expand(reading);
    const auto num_seen = static_cast<int64_t>(seen_.size());
    if (num_seen > limits_.max_parallel_states || work_ > limits_.max_mask_work) {
      failure_ = AutomatonFailure::kAmbiguous;
      open_.clear();
    }
  }
  std::vector<Reading> readings = std::move(found_);
  const bool is_accepting = found_accepting_;
  found_.clear();
  seen_.clear();
  found_accepting_ = false;
  if (failure_ != AutomatonFailure::kNone) return kFailed;
  std::sort(readings.begin(), readings.end());
  return AddState(std::move(readings), is_accepting);
}

int32_t Automaton::AddState(std::vector<Reading> readings, bool is_accepting) {
  const auto num_readings = static_cast<int32_t>(readings.size());
  if (is_accepting) readings.push_back({kAcceptingMark, kEmptyStack});
  readings.shrink_to_fit();
  const std::string_view key(reinterpret_cast<const char*>(readings.data()),
                             readings.size() * sizeof(Reading));
  if (const auto it = ids_.find(key); it != ids_.end()) return it->second;
  if (memory_bytes_ > limits_.max_cache_bytes / 2) {  // masks have the other half
    failure_ = AutomatonFailure::kFull;
    return kFailed;
  }
  const int32_t id = num_states();
  ids_.emplace(key, id);
  const auto row_bytes = static_cast<int64_t>(grammar_->num_byte_classes() * sizeof(int32_t));
  memory_bytes_ += static_cast<int64_t>(key.size() + sizeof(State) + sizeof(std::string)) +
                   row_bytes + kMapOverheadBytes;
  states_.push_back({std::move(readings), num_readings, is_accepting});
  next_.resize(next_.size() + grammar_->num_byte_classes(), kDead);
  ExpectSteps(id);
  return id;
}

// Most bytes are read by no edge, and lead nowhere: only the others are left to ComputeStep.
void Automaton::ExpectSteps(int32_t state) {
  int32_t* const next = next_.data() + Slot(state, 0);
  for (const Reading& reading : states_[state].readings) {
    if (reading.state == kAcceptingMark) continue;
    for (const Edge& edge : grammar_->edges(reading.state)) {
      if (edge.kind != Edge::Kind::kBytes) continue;
      std::fill(next + grammar_->byte_class(edge.low), next + grammar_->byte_class(edge.high) + 1,
                kUnknown);
    }
  }
}

int32_t Automaton::PushFrame(int32_t parent, StateId return_state, int32_t depth) {
  const auto [it, is_new] =
      frame_ids_.try_emplace({parent, return_state, depth}, static_cast<int32_t>(frames_.size()));
  if (is_new) {
    frames_.push_back({parent, return_state, depth});
    memory_bytes_ += static_cast<int64_t>(sizeof(Frame) + sizeof(*it)) + kMapOverheadBytes;
  }
  return it->second;
}

int32_t Automaton::Import(const Automaton& other, int32_t state) {
  const State& from = other.states_[state];
  std::vector<Reading> readings;
  for (const Reading& reading : from.readings) {
    if (reading.state == kAcceptingMark) continue;
    std::vector<Frame> frames;  // innermost first
    for (int32_t s = reading.stack; s != kEmptyStack; s = other.frames_[s].parent) {
      frames.push_back(other.frames_[s]);
    }
    int32_t stack = kEmptyStack;
    for (auto it = frames.rbegin(); it != frames.rend(); ++it) {
      stack = PushFrame(stack, it->return_state, it->depth);
    }
    readings.push_back({reading.state, stack});
  }
  std::sort(readings.begin(), readings.end());
  return AddState(std::move(readings), from.is_accepting);
}

}  // namespace nsa::constraint
