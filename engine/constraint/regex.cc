#include "engine/constraint/regex.h"

#include "engine/constraint/regex_parser.h"

namespace nsa::constraint {
namespace {

class RegexEmitter {
 public:
  RegexEmitter(Grammar* grammar, TextEncoding encoding) : grammar_(grammar), encoding_(encoding) {}

  void Add(const RegexNode& node, StateId from, StateId to) {
    if (grammar_->over_limit()) return;
    switch (node.kind) {
      case RegexNode::Kind::kSet:
        return AddCodePoint(grammar_, node.set, encoding_, from, to);
      case RegexNode::Kind::kConcatenation:
        return AddConcatenation(node, from, to);
      case RegexNode::Kind::kAlternation:
        for (const RegexNode& child : node.children) Add(child, from, to);
        return;
      case RegexNode::Kind::kRepeat:
        return AddRepeat(node, from, to);
    }
  }

  // Any text, read without leaving the state.
  void AddAnything(StateId state) {
    AddCodePoint(grammar_, AllCodePoints(), encoding_, state, state);
  }

 private:
  void AddConcatenation(const RegexNode& node, StateId from, StateId to) {
    for (const RegexNode& child : node.children) {
      const StateId next = grammar_->AddState();
      Add(child, from, next);
      from = next;
    }
    grammar_->AddEpsilon(from, to);
  }

  void AddRepeat(const RegexNode& node, StateId from, StateId to) {
    const RegexNode& child = node.children.front();
    // States of its own, so that a loop is entered by its front door only.
    StateId state = grammar_->AddState();
    grammar_->AddEpsilon(from, state);
    const bool is_unbounded = node.max_count == RegexNode::kUnbounded;
    const int32_t num_copies = is_unbounded ? node.min_count : node.max_count;
    for (int32_t i = 0; i < num_copies && !grammar_->over_limit(); ++i) {
      if (i >= node.min_count) grammar_->AddEpsilon(state, to);
      const StateId next = grammar_->AddState();
      Add(child, state, next);
      state = next;
    }
    if (is_unbounded) Add(child, state, state);
    grammar_->AddEpsilon(state, to);
  }

  Grammar* const grammar_;
  const TextEncoding encoding_;
};

}  // namespace

absl::StatusOr<std::vector<RegexAlternative>> ParseRegex(std::string_view source,
                                                         int64_t max_nesting) {
  return RegexParser(source, max_nesting).Parse();
}

void AddRegex(Grammar* grammar, const std::vector<RegexAlternative>& regex, RegexMatch match,
              TextEncoding encoding, StateId from, StateId to) {
  RegexEmitter emitter(grammar, encoding);
  for (const RegexAlternative& alternative : regex) {
    const StateId start = grammar->AddState();
    const StateId end = grammar->AddState();
    grammar->AddEpsilon(from, start);
    const bool is_search = match == RegexMatch::kSearch;
    if (is_search && !alternative.starts_anchored) emitter.AddAnything(start);
    emitter.Add(alternative.node, start, end);
    if (is_search && !alternative.ends_anchored) emitter.AddAnything(end);
    grammar->AddEpsilon(end, to);
  }
}

}  // namespace nsa::constraint
