#include "engine/constraint/json_fragments.h"

#include "engine/constraint/number_fragments.h"
#include "engine/constraint/text_fragments.h"

namespace nsa::constraint {

std::string CompactText(const Json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

StateId JsonFragments::AddSpace(StateId from) {
  const StateId to = grammar_->AddState();
  grammar_->AddEpsilon(from, to);
  grammar_->AddBytes(from, ' ', ' ', to);
  StateId state = grammar_->AddState();
  grammar_->AddBytes(from, '\n', '\n', state);
  for (int i = 0; i < kMaxIndentation; ++i) {
    grammar_->AddEpsilon(state, to);
    const StateId next = grammar_->AddState();
    grammar_->AddBytes(state, ' ', ' ', next);
    state = next;
  }
  grammar_->AddEpsilon(state, to);
  return to;
}

void JsonFragments::AddColon(StateId from, StateId to) {
  const StateId after = grammar_->AddState();
  grammar_->AddBytes(from, ':', ':', after);
  grammar_->AddEpsilon(after, to);
  grammar_->AddBytes(after, ' ', ' ', to);
}

void JsonFragments::AddAnyString(StateId from, StateId to) {
  AddJsonString(grammar_, 0, std::nullopt, from, to);
}

void JsonFragments::AddAnyObject(StateId from, StateId to) {
  grammar_->AddCall(from, ObjectRule(), to);
}

void JsonFragments::AddAnyArray(StateId from, StateId to) {
  grammar_->AddCall(from, ArrayRule(), to);
}

void JsonFragments::AddAnyValue(StateId from, StateId to) {
  grammar_->AddCall(from, ScalarRule(), to);
  AddAnyObject(from, to);
  AddAnyArray(from, to);
}

RuleId JsonFragments::ScalarRule() {
  if (scalar_rule_ >= 0) return scalar_rule_;
  scalar_rule_ = grammar_->AddRule(RuleKind::kFlat);
  const Rule rule = grammar_->rule(scalar_rule_);
  AddAnyText(grammar_, {"null", "true", "false"}, rule.start, rule.accept);
  AddNumber(grammar_, rule.start, rule.accept);
  AddAnyString(rule.start, rule.accept);
  return scalar_rule_;
}

RuleId JsonFragments::ObjectRule() {
  if (object_rule_ >= 0) return object_rule_;
  object_rule_ = grammar_->AddRule();
  const Rule rule = grammar_->rule(object_rule_);
  const StateId open = grammar_->AddState();
  const StateId after_key = grammar_->AddState();
  const StateId value = grammar_->AddState();
  const StateId after_value = grammar_->AddState();
  const StateId comma = grammar_->AddState();
  grammar_->AddBytes(rule.start, '{', '{', open);
  const StateId first = AddSpace(open);
  grammar_->AddBytes(first, '}', '}', rule.accept);
  const StateId key = grammar_->AddState();
  grammar_->AddEpsilon(first, key);
  AddAnyString(key, after_key);
  AddColon(after_key, value);
  AddAnyValue(value, after_value);
  grammar_->AddBytes(after_value, ',', ',', comma);
  grammar_->AddEpsilon(AddSpace(comma), key);
  grammar_->AddBytes(AddSpace(after_value), '}', '}', rule.accept);
  return object_rule_;
}

RuleId JsonFragments::ArrayRule() {
  if (array_rule_ >= 0) return array_rule_;
  array_rule_ = grammar_->AddRule();
  const Rule rule = grammar_->rule(array_rule_);
  const StateId open = grammar_->AddState();
  const StateId value = grammar_->AddState();
  const StateId after_value = grammar_->AddState();
  const StateId comma = grammar_->AddState();
  grammar_->AddBytes(rule.start, '[', '[', open);
  const StateId first = AddSpace(open);
  grammar_->AddBytes(first, ']', ']', rule.accept);
  grammar_->AddEpsilon(first, value);
  AddAnyValue(value, after_value);
  grammar_->AddBytes(after_value, ',', ',', comma);
  grammar_->AddEpsilon(AddSpace(comma), value);
  grammar_->AddBytes(AddSpace(after_value), ']', ']', rule.accept);
  return array_rule_;
}

void JsonFragments::AddLiteral(const Json& value, StateId from, StateId to) {
  if (!value.is_structured()) return AddText(grammar_, CompactText(value), from, to);
  const uint8_t open_byte = value.is_object() ? '{' : '[';
  const uint8_t close_byte = value.is_object() ? '}' : ']';
  StateId state = grammar_->AddState();
  grammar_->AddBytes(from, open_byte, open_byte, state);
  state = AddSpace(state);
  bool is_first = true;
  for (const auto& [key, member] : value.items()) {
    if (!is_first) {
      const StateId comma = grammar_->AddState();
      grammar_->AddBytes(state, ',', ',', comma);
      state = AddSpace(comma);
    }
    is_first = false;
    if (value.is_object()) {
      const StateId after_key = grammar_->AddState();
      const StateId before_value = grammar_->AddState();
      AddText(grammar_, CompactText(key), state, after_key);
      AddColon(after_key, before_value);
      state = before_value;
    }
    const StateId after_value = grammar_->AddState();
    AddLiteral(member, state, after_value);
    state = after_value;
  }
  if (!value.empty()) state = AddSpace(state);
  grammar_->AddBytes(state, close_byte, close_byte, to);
}

}  // namespace nsa::constraint
