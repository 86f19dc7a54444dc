#include "engine/constraint/number_fragments.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace nsa::constraint {
namespace {

constexpr int kMaxFreeDigits = 19;
constexpr int kMaxFreeFraction = 17;
constexpr int kMaxExponentDigits = 2;

bool IsZero(const Decimal& value) { return value.integer == "0" && value.fraction.empty(); }

// Numbers without sign of one count of digits, between bounds; the automaton remembers whether what
// it has read is still the beginning of a bound.
class MagnitudeRange {
 public:
  MagnitudeRange(Grammar* grammar, const NumberBounds& bounds, int num_fraction, StateId to)
      : grammar_(grammar), bounds_(bounds), num_fraction_(num_fraction), to_(to) {}

  // All of `num_integer` digits before the point.
  void Add(int num_integer, StateId from);

 private:
  struct Place {
    int position;  // digits read
    bool at_low;   // they are those of the lower bound
    bool at_high;
    bool after_point;
    bool operator<(const Place& other) const {
      return std::tie(position, at_low, at_high, after_point) <
             std::tie(other.position, other.at_low, other.at_high, other.after_point);
    }
  };
  StateId StateOf(const Place& place);
  void Expand(const Place& place, StateId state);
  void AddDigits(const Place& place, StateId state);
  char Digit(const NumberBound& bound, int position) const;
  bool RestIsZero(const NumberBound& bound, int position) const;
  bool MayEnd(const Place& place) const;

  Grammar* const grammar_;
  const NumberBounds& bounds_;
  const int num_fraction_;
  const StateId to_;
  int num_integer_ = 0;
  std::map<Place, StateId> states_;
  std::vector<std::pair<Place, StateId>> pending_;
};

void MagnitudeRange::Add(int num_integer, StateId from) {
  num_integer_ = num_integer;
  states_.clear();
  const auto digits = [](const std::optional<NumberBound>& bound) {
    return bound ? static_cast<int>(bound->value.integer.size()) : 0;
  };
  if (bounds_.low && digits(bounds_.low) > num_integer) return;
  if (bounds_.high && digits(bounds_.high) < num_integer) return;
  grammar_->AddEpsilon(from, StateOf({0, digits(bounds_.low) == num_integer,
                                      digits(bounds_.high) == num_integer, false}));
  while (!pending_.empty()) {
    const auto [place, state] = pending_.back();
    pending_.pop_back();
    Expand(place, state);
  }
}

StateId MagnitudeRange::StateOf(const Place& place) {
  const auto [it, is_new] = states_.try_emplace(place, 0);
  if (is_new) {
    it->second = grammar_->AddState();
    pending_.emplace_back(place, it->second);
  }
  return it->second;
}

char MagnitudeRange::Digit(const NumberBound& bound, int position) const {
  if (position < num_integer_) return bound.value.integer[position];
  const size_t index = position - num_integer_;
  return index < bound.value.fraction.size() ? bound.value.fraction[index] : '0';
}

bool MagnitudeRange::RestIsZero(const NumberBound& bound, int position) const {
  for (int i = position; i < num_integer_ + kMaxDecimalDigits; ++i) {
    if (Digit(bound, i) != '0') return false;
  }
  return true;
}

bool MagnitudeRange::MayEnd(const Place& place) const {
  if (place.position < num_integer_) return false;
  if (place.at_low && !(RestIsZero(*bounds_.low, place.position) && bounds_.low->is_inclusive)) {
    return false;
  }
  return !place.at_high || bounds_.high->is_inclusive || !RestIsZero(*bounds_.high, place.position);
}

void MagnitudeRange::Expand(const Place& place, StateId state) {
  const bool before_point = place.position == num_integer_ && !place.after_point;
  if (!place.after_point || place.position > num_integer_) {
    if (MayEnd(place)) grammar_->AddEpsilon(state, to_);
  }
  if (before_point) {
    if (num_fraction_ == 0) return;
    grammar_->AddBytes(state, '.', '.',
                       StateOf({place.position, place.at_low, place.at_high, true}));
  } else if (place.position < num_integer_ + num_fraction_) {
    AddDigits(place, state);
  }
}

void MagnitudeRange::AddDigits(const Place& place, StateId state) {
  const char least = place.position == 0 && num_integer_ > 1 ? '1' : '0';
  const char low = place.at_low ? Digit(*bounds_.low, place.position) : '0';
  const char high = place.at_high ? Digit(*bounds_.high, place.position) : '9';
  for (char digit = std::max(least, low); digit <= high; ++digit) {
    const StateId next = StateOf({place.position + 1, place.at_low && digit == low,
                                  place.at_high && digit == high, place.after_point});
    grammar_->AddBytes(state, digit, digit, next);
  }
}

void AddDigitRun(Grammar* grammar, int max_digits, StateId from, StateId to) {
  for (int i = 0; i < max_digits; ++i) {
    const StateId next = grammar->AddState();
    grammar->AddBytes(from, '0', '9', next);
    grammar->AddEpsilon(next, to);
    from = next;
  }
}

// Bounds of the magnitude of the negative numbers within bounds.
NumberBounds Negated(const NumberBounds& bounds) {
  NumberBounds negated;
  const auto flip = [](NumberBound bound) {
    bound.value.is_negative = false;
    return bound;
  };
  negated.low = NumberBound{Decimal{}, /*is_inclusive=*/false};  // -0 is not written
  if (bounds.high && bounds.high->value.is_negative) negated.low = flip(*bounds.high);
  if (bounds.low) negated.high = flip(*bounds.low);
  return negated;
}

void AddWithin(Grammar* grammar, const NumberBounds& bounds, int max_integer, int max_fraction,
               StateId from, StateId to) {
  const bool has_positive = !bounds.high || !bounds.high->value.is_negative;
  if (has_positive) {
    NumberBounds positive = bounds;
    if (positive.low && positive.low->value.is_negative) positive.low.reset();
    MagnitudeRange range(grammar, positive, max_fraction, to);
    for (int digits = 1; digits <= max_integer; ++digits) range.Add(digits, from);
  }
  const bool has_negative =
      !bounds.low || (bounds.low->value.is_negative && !IsZero(bounds.low->value));
  if (has_negative) {
    const StateId after_sign = grammar->AddState();
    grammar->AddBytes(from, '-', '-', after_sign);
    const NumberBounds negated = Negated(bounds);
    MagnitudeRange range(grammar, negated, max_fraction, to);
    for (int digits = 1; digits <= max_integer; ++digits) range.Add(digits, after_sign);
  }
}

}  // namespace

Decimal DecimalOf(int64_t value) {
  std::string digits = absl::StrCat(value);
  if (value < 0) digits.erase(0, 1);
  return {.is_negative = value < 0, .integer = digits, .fraction = {}};
}

std::optional<Decimal> DecimalOf(double value) {
  if (!std::isfinite(value) || std::fabs(value) >= std::pow(10.0, kMaxDecimalDigits)) return {};
  // The shortest spelling is the one that was meant: 0.1, not what a double makes of it.
  for (int num_fraction = 0; num_fraction <= kMaxDecimalDigits; ++num_fraction) {
    const std::string digits = absl::StrFormat("%.*f", num_fraction, std::fabs(value));
    if (std::strtod(digits.c_str(), nullptr) != std::fabs(value)) continue;
    const size_t point = std::min(digits.find('.'), digits.size());
    return Decimal{.is_negative = value < 0,
                   .integer = digits.substr(0, point),
                   .fraction = num_fraction == 0 ? "" : digits.substr(point + 1)};
  }
  return {};
}

void AddInteger(Grammar* grammar, int64_t low, int64_t high, StateId from, StateId to) {
  if (low > high) return;
  const NumberBounds bounds = {.low = NumberBound{DecimalOf(low)},
                               .high = NumberBound{DecimalOf(high)}};
  AddWithin(grammar, bounds, kMaxIntegerDigits + 1, 0, from, to);
}

void AddBoundedNumber(Grammar* grammar, const NumberBounds& bounds, StateId from, StateId to) {
  AddWithin(grammar, bounds, kMaxDecimalDigits, kMaxDecimalDigits, from, to);
}

void AddNumber(Grammar* grammar, StateId from, StateId to) {
  const StateId first = grammar->AddState();
  const StateId after_integer = grammar->AddState();
  const StateId after_fraction = grammar->AddState();
  grammar->AddEpsilon(from, first);
  grammar->AddBytes(from, '-', '-', first);
  grammar->AddBytes(first, '0', '0', after_integer);
  const StateId leading = grammar->AddState();
  grammar->AddBytes(first, '1', '9', leading);
  grammar->AddEpsilon(leading, after_integer);
  AddDigitRun(grammar, kMaxFreeDigits - 1, leading, after_integer);
  const StateId point = grammar->AddState();
  grammar->AddBytes(after_integer, '.', '.', point);
  AddDigitRun(grammar, kMaxFreeFraction, point, after_fraction);
  grammar->AddEpsilon(after_integer, after_fraction);
  const StateId exponent = grammar->AddState();
  const StateId exponent_digits = grammar->AddState();
  grammar->AddBytes(after_fraction, 'E', 'E', exponent);
  grammar->AddBytes(after_fraction, 'e', 'e', exponent);
  grammar->AddBytes(exponent, '+', '+', exponent_digits);
  grammar->AddBytes(exponent, '-', '-', exponent_digits);
  grammar->AddEpsilon(exponent, exponent_digits);
  AddDigitRun(grammar, kMaxExponentDigits, exponent_digits, to);
  grammar->AddEpsilon(after_fraction, to);
}

}  // namespace nsa::constraint
