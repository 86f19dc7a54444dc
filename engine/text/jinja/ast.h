#pragma once
// A compiled template: statements and expressions as plain trees, every name in them already
// checked against the tables of the parser.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja/value.h"

namespace nsa::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind : uint8_t {
    kLiteral,      // literal
    kVariable,     // name
    kList,         // operands
    kAttribute,    // operands[0].name
    kIndex,        // operands[0][operands[1]]
    kSlice,        // operands[0][operands[1] : operands[2] : operands[3]], null where left out
    kMethod,       // operands[0].name(operands[1...])
    kFilter,       // operands[0] | name(operands[1...])
    kTest,         // operands[0] is name
    kRaise,        // raise_exception(operands[0])
    kNamespace,    // namespace(keywords[i] = operands[i])
    kUnary,        // name operands[0]: "not", "-"
    kBinary,       // operands[0] name operands[1]
    kConditional,  // operands[1] if operands[0] else operands[2]; the else part may be null
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  std::string name;
  Value literal;
  std::vector<ExpressionPtr> operands;
  std::vector<std::string> keywords;
  int height = 1;  // of the tree: 1 + the tallest operand's

  // Appends an operand; null stands for a part left out.
  void Add(ExpressionPtr operand) {
    if (operand != nullptr) height = std::max(height, operand->height + 1);
    operands.push_back(std::move(operand));
  }
};

struct Statement;
using Block = std::vector<Statement>;

struct Statement {
  enum class Kind : uint8_t {
    kText,    // text
    kOutput,  // {{ expression }}
    kSet,     // {% set text = expression %}, or text.attribute with a namespace
    kFor,     // {% for text in expression %} bodies[0] {% endfor %}
    kIf,      // {% if conditions[0] %} bodies[0] {% elif conditions[1] %} ... ; a last body without
              // a condition is the else
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  std::string attribute;
  ExpressionPtr expression;
  std::vector<ExpressionPtr> conditions;
  std::vector<Block> bodies;
};

}  // namespace nsa::jinja
