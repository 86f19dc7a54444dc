#pragma once
// Grammar: a nondeterministic automaton over bytes whose edges may call rules, which may call each
// other and themselves. Built once, then frozen.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace nsa::constraint {

using StateId = int32_t;
using RuleId = int32_t;

// Whether a rule counts when the nesting of an output is limited. One that does not must call only
// rules that do, or none.
enum class RuleKind : uint8_t { kNesting, kFlat };

// What a rule reads takes the grammar from `start` to `accept`. Nothing leaves `accept`.
struct Rule {
  StateId start = 0;
  StateId accept = 0;
  int32_t depth = 1;  // 0: RuleKind::kFlat
};

struct Edge {
  enum class Kind : uint8_t { kBytes, kEpsilon, kCall };
  Kind kind = Kind::kEpsilon;
  uint8_t low = 0;  // kBytes: low..high, both included
  uint8_t high = 0;
  RuleId rule = 0;  // kCall
  StateId to = 0;
};

class Grammar {
 public:
  // Deeper than any output may nest: the height of what can never be completed.
  static constexpr int32_t kEndless = 1 << 20;

  explicit Grammar(int64_t max_states) : max_states_(max_states) {}

  // Building. Past the limit, states and edges are no longer added: a builder may go on, but loops
  // whose length a client chooses must look at over_limit().
  StateId AddState();
  void AddBytes(StateId from, uint8_t low, uint8_t high, StateId to);
  void AddEpsilon(StateId from, StateId to);
  void AddCall(StateId from, RuleId rule, StateId to);
  RuleId AddRule(RuleKind kind = RuleKind::kNesting);  // the first one is the whole output
  bool over_limit() const { return over_limit_; }
  const Rule& rule(RuleId id) const { return rules_[id]; }

  // Freezes. INVALID_ARGUMENT: a limit was passed, or no output can be completed.
  absl::Status Finish(int64_t max_output_nesting);

  // Afterwards.
  std::span<const Edge> edges(StateId state) const {
    return {edges_.data() + first_edge_[state], edges_.data() + first_edge_[state + 1]};
  }
  bool is_accept(StateId state) const { return is_accept_[state]; }
  // Calls that must nest below this state before its rule can end, at least.
  int32_t height(StateId state) const { return heights_[state]; }
  int32_t max_output_nesting() const { return max_output_nesting_; }
  int32_t num_states() const { return num_states_; }
  // Bytes of one class take every edge together.
  int32_t byte_class(uint8_t byte) const { return byte_classes_[byte]; }
  int32_t num_byte_classes() const { return num_byte_classes_; }
  uint8_t class_example(int32_t byte_class) const { return class_examples_[byte_class]; }
  int64_t memory_bytes() const;

 private:
  struct NewEdge {
    StateId from;
    Edge edge;
  };
  void AddEdge(StateId from, const Edge& edge);
  void SortEdges();
  void FindHeights();
  bool MarkHeight(int32_t height, const std::vector<std::vector<StateId>>& into);
  void FindByteClasses();

  int64_t max_states_;
  int32_t num_states_ = 0;
  bool over_limit_ = false;
  std::vector<NewEdge> new_edges_;
  std::vector<Rule> rules_;

  std::vector<int32_t> first_edge_;  // [num_states + 1]
  std::vector<Edge> edges_;
  std::vector<bool> is_accept_;
  std::vector<int32_t> heights_;
  int32_t max_output_nesting_ = 0;
  std::array<uint8_t, 256> byte_classes_ = {};
  std::vector<uint8_t> class_examples_;
  int32_t num_byte_classes_ = 0;
};

}  // namespace nsa::constraint
