#include "engine/constraint/grammar.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace nsa::constraint {
namespace {

constexpr int64_t kMaxEdgesPerState = 8;  // on average

}  // namespace

StateId Grammar::AddState() {
  if (num_states_ >= max_states_) {
    over_limit_ = true;
    return 0;
  }
  return num_states_++;
}

void Grammar::AddEdge(StateId from, const Edge& edge) {
  if (static_cast<int64_t>(new_edges_.size()) >= max_states_ * kMaxEdgesPerState) {
    over_limit_ = true;
  }
  if (!over_limit_) new_edges_.push_back({from, edge});
}

void Grammar::AddBytes(StateId from, uint8_t low, uint8_t high, StateId to) {
  AddEdge(from, {.kind = Edge::Kind::kBytes, .low = low, .high = high, .to = to});
}

void Grammar::AddEpsilon(StateId from, StateId to) {
  AddEdge(from, {.kind = Edge::Kind::kEpsilon, .to = to});
}

void Grammar::AddCall(StateId from, RuleId rule, StateId to) {
  AddEdge(from, {.kind = Edge::Kind::kCall, .rule = rule, .to = to});
}

RuleId Grammar::AddRule(RuleKind kind) {
  const StateId start = AddState();
  rules_.push_back({start, AddState(), kind == RuleKind::kNesting ? 1 : 0});
  return static_cast<RuleId>(rules_.size()) - 1;
}

absl::Status Grammar::Finish(int64_t max_output_nesting) {
  if (over_limit_) {
    return absl::InvalidArgumentError(
        absl::StrCat("the constraint needs more than ", max_states_, " grammar states"));
  }
  max_output_nesting_ = static_cast<int32_t>(max_output_nesting);
  SortEdges();
  is_accept_.assign(num_states_, false);
  for (const Rule& rule : rules_) is_accept_[rule.accept] = true;
  FindHeights();
  FindByteClasses();
  if (heights_[rules_.front().start] > max_output_nesting_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the constraint accepts no output that nests at most ", max_output_nesting, " deep"));
  }
  return absl::OkStatus();
}

void Grammar::SortEdges() {
  first_edge_.assign(num_states_ + 1, 0);
  for (const NewEdge& added : new_edges_) ++first_edge_[added.from + 1];
  for (int32_t i = 0; i < num_states_; ++i) first_edge_[i + 1] += first_edge_[i];
  edges_.resize(new_edges_.size());
  std::vector<int32_t> next(first_edge_.begin(), first_edge_.end() - 1);
  for (const NewEdge& added : new_edges_) edges_[next[added.from]++] = added.edge;
  new_edges_ = {};
}

// Height by height: what can end its rule with calls of lower height alone. An endless rule never
// gets one.
void Grammar::FindHeights() {
  heights_.assign(num_states_, kEndless);
  std::vector<std::vector<StateId>> into(num_states_);
  for (StateId from = 0; from < num_states_; ++from) {
    for (const Edge& edge : edges(from)) {
      into[edge.to].push_back(from);
      if (edge.kind == Edge::Kind::kCall) into[rules_[edge.rule].start].push_back(from);
    }
  }
  for (int32_t height = 0; height <= max_output_nesting_; ++height) {
    if (!MarkHeight(height, into)) return;
  }
}

bool Grammar::MarkHeight(int32_t height, const std::vector<std::vector<StateId>>& into) {
  bool has_marked = false;
  std::vector<StateId> ready;
  const auto can_end = [&](StateId from) {
    for (const Edge& edge : edges(from)) {
      if (heights_[edge.to] > height) continue;
      if (edge.kind != Edge::Kind::kCall) return true;
      const Rule& rule = rules_[edge.rule];
      if (heights_[rule.start] + rule.depth <= height) return true;
    }
    return false;
  };
  const auto mark = [&](StateId state) {
    heights_[state] = height;
    ready.push_back(state);
    has_marked = true;
  };
  for (StateId state = 0; state < num_states_; ++state) {
    if (heights_[state] != kEndless) continue;
    if (is_accept_[state] || can_end(state)) mark(state);
  }
  while (!ready.empty()) {
    const StateId state = ready.back();
    ready.pop_back();
    for (const StateId from : into[state]) {
      if (heights_[from] == kEndless && can_end(from)) mark(from);
    }
  }
  return has_marked;
}

void Grammar::FindByteClasses() {
  std::array<bool, 257> starts_class = {};
  starts_class[0] = true;
  for (const Edge& edge : edges_) {
    if (edge.kind != Edge::Kind::kBytes) continue;
    starts_class[edge.low] = true;
    starts_class[edge.high + 1] = true;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (starts_class[byte]) class_examples_.push_back(static_cast<uint8_t>(byte));
    byte_classes_[byte] = static_cast<uint8_t>(class_examples_.size() - 1);
  }
  num_byte_classes_ = static_cast<int32_t>(class_examples_.size());
}

int64_t Grammar::memory_bytes() const {
  return static_cast<int64_t>(edges_.capacity() * sizeof(Edge) +
                              first_edge_.capacity() * sizeof(int32_t) +
                              heights_.capacity() * sizeof(int32_t));
}

}  // namespace nsa::constraint
