#pragma once
// Pieces of grammars that read JSON numbers between bounds, digit by digit and therefore exactly.

#include <cstdint>
#include <optional>
#include <string>

#include "engine/constraint/grammar.h"

namespace nsa::constraint {

inline constexpr int kMaxIntegerDigits = 18;  // of an integer without a bound on its side
inline constexpr int kMaxDecimalDigits = 15;  // before and after the point of a bounded number

// A decimal number: [-]integer[.fraction], no superfluous zeros, no negative zero.
struct Decimal {
  bool is_negative = false;
  std::string integer = "0";
  std::string fraction;
};
Decimal DecimalOf(int64_t value);
// Nothing where the number has more digits than kMaxDecimalDigits on a side.
std::optional<Decimal> DecimalOf(double value);

struct NumberBound {
  Decimal value;
  bool is_inclusive = true;
};
struct NumberBounds {
  std::optional<NumberBound> low;
  std::optional<NumberBound> high;
};

// Any integer without fraction and exponent, low <= value <= high; -0 is not written.
void AddInteger(Grammar* grammar, int64_t low, int64_t high, StateId from, StateId to);

// A number within bounds, at least one of them given, without exponent.
void AddBoundedNumber(Grammar* grammar, const NumberBounds& bounds, StateId from, StateId to);

// Any number of up to 19 digits before the point, 17 after it and 2 in the exponent: no reader
// takes it for infinity.
void AddNumber(Grammar* grammar, StateId from, StateId to);

}  // namespace nsa::constraint
