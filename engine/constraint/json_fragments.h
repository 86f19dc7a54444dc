#pragma once
// Pieces of grammars that read JSON without a schema, and the white space that all JSON may have.

#include <nlohmann/json.hpp>

#include "engine/constraint/grammar.h"

namespace nsa::constraint {

using Json = nlohmann::ordered_json;  // the order of `properties` is the order of the output

// Spaces after a line end, at most: an output cannot grow by white space for ever.
inline constexpr int kMaxIndentation = 16;

class JsonFragments {
 public:
  explicit JsonFragments(Grammar* grammar) : grammar_(grammar) {}

  // Nothing, one space, or a line end and an indentation: what may follow '{', '[' and ',' and
  // precede '}' and ']'. Returns where it ends.
  StateId AddSpace(StateId from);
  // ':' and at most one space.
  void AddColon(StateId from, StateId to);

  // Values of one type, as any JSON text has them.
  void AddAnyString(StateId from, StateId to);
  void AddAnyObject(StateId from, StateId to);
  void AddAnyArray(StateId from, StateId to);
  void AddAnyValue(StateId from, StateId to);

  // One given value, its containers with white space.
  void AddLiteral(const Json& value, StateId from, StateId to);

 private:
  // Rules are made when they are first asked for.
  RuleId ScalarRule();
  RuleId ObjectRule();
  RuleId ArrayRule();

  Grammar* const grammar_;
  RuleId scalar_rule_ = -1;
  RuleId object_rule_ = -1;
  RuleId array_rule_ = -1;
};

// A value as an output spells it: UTF-8, no superfluous escapes, no white space.
std::string CompactText(const Json& value);

}  // namespace nsa::constraint
