#include "engine/constraint/number_fragments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/constraint/automaton.h"

namespace nsa::constraint {
namespace {

using Adder = std::function<void(Grammar*, StateId, StateId)>;

class NumberMatcher {
 public:
  explicit NumberMatcher(const Adder& add) : grammar_(100'000) {
    const Rule root = grammar_.rule(grammar_.AddRule());
    add(&grammar_, root.start, root.accept);
    grammar_.AddBytes(root.start, '#', '#',
                      root.accept);  // so that an empty range is a grammar too
    EXPECT_TRUE(grammar_.Finish(0).ok());
    automaton_ = std::make_unique<Automaton>(&grammar_, ConstraintLimits{});
  }
  bool Accepts(const std::string& text) {
    int32_t state = automaton_->start();
    for (const char byte : text) state = automaton_->Step(state, static_cast<uint8_t>(byte));
    return automaton_->is_accepting(state);
  }

 private:
  Grammar grammar_;
  std::unique_ptr<Automaton> automaton_;
};

NumberMatcher Integers(int64_t low, int64_t high) {
  return NumberMatcher([=](Grammar* grammar, StateId from, StateId to) {
    AddInteger(grammar, low, high, from, to);
  });
}

TEST(NumberFragmentsTest, EverySmallIntegerRange) {
  for (int64_t low = -120; low <= 120; low += 7) {
    for (int64_t high = low - 1; high <= 130; high += 13) {
      NumberMatcher matcher = Integers(low, high);
      for (int64_t value = -140; value <= 140; ++value) {
        ASSERT_EQ(matcher.Accepts(absl::StrCat(value)), low <= value && value <= high)
            << value << " in [" << low << ", " << high << "]";
      }
    }
  }
}

TEST(NumberFragmentsTest, IntegersAtTheEndsOfTheirType) {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  NumberMatcher all = Integers(kLeast, kMost);
  EXPECT_TRUE(all.Accepts(absl::StrCat(kLeast)) && all.Accepts(absl::StrCat(kMost)));
  EXPECT_FALSE(all.Accepts("9223372036854775808") || all.Accepts("-9223372036854775809"));
  EXPECT_FALSE(all.Accepts("-0") || all.Accepts("00") || all.Accepts("01") || all.Accepts("-"));
  EXPECT_FALSE(all.Accepts("") || all.Accepts("1.0") || all.Accepts("1e2") || all.Accepts("+1"));
  EXPECT_TRUE(Integers(kMost, kMost).Accepts(absl::StrCat(kMost)));
  EXPECT_FALSE(Integers(kMost, kMost).Accepts(absl::StrCat(kMost - 1)));
}

TEST(NumberFragmentsTest, DecimalsBetweenBounds) {
  const double values[] = {-10.5, -1, -0.25, 0, 0.1, 0.5, 1, 9.99, 10, 100.001};
  const char* const texts[] = {"-11",       "-10.5",
                               "-10.50",    "-10.51",
                               "-10.499",   "-1",
                               "-1.0",      "-0.9",
                               "-0.25",     "-0.26",
                               "-0.2",      "0",
                               "0.0",       "0.09",
                               "0.1",       "0.10",
                               "0.1001",    "0.5",
                               "0.49",      "1",
                               "1.000",     "1.0001",
                               "5",         "9.98",
                               "9.99",      "9.991",
                               "10",        "99",
                               "100",       "100.001",
                               "100.00100", "100.0011",
                               "101",       "123456789012345"};
  for (const double low : values) {
    for (const double high : values) {
      for (const int kinds : {0, 1, 2, 3}) {
        const NumberBounds bounds = {.low = NumberBound{*DecimalOf(low), (kinds & 1) == 0},
                                     .high = NumberBound{*DecimalOf(high), (kinds & 2) == 0}};
        NumberMatcher matcher([&bounds](Grammar* grammar, StateId from, StateId to) {
          AddBoundedNumber(grammar, bounds, from, to);
        });
        for (const char* text : texts) {
          const double value = std::stod(text);
          const bool is_in = (bounds.low->is_inclusive ? value >= low : value > low) &&
                             (bounds.high->is_inclusive ? value <= high : value < high);
          ASSERT_EQ(matcher.Accepts(text), is_in)
              << text << ", " << low << ", " << high << ", " << kinds;
        }
      }
    }
  }
}

TEST(NumberFragmentsTest, FreeNumbersStayFinite) {
  NumberMatcher free(AddNumber);
  for (const char* text : {"0", "-0", "-0.5", "12e3", "1E-99", "9999999999999999999", "1.5e+7"}) {
    EXPECT_TRUE(free.Accepts(text)) << text;
    EXPECT_TRUE(std::isfinite(std::stod(text)));
  }
  for (const char* text :
       {"", "-", "01", "1.", ".5", "1e", "1e100", "99999999999999999999", "NaN"}) {
    EXPECT_FALSE(free.Accepts(text)) << text;
  }
}

TEST(NumberFragmentsTest, DecimalsThatCannotBeWrittenAreNone) {
  EXPECT_TRUE(DecimalOf(0.1).has_value());
  EXPECT_EQ(DecimalOf(-2.5)->fraction, "5");
  EXPECT_FALSE(DecimalOf(1e-17).has_value());
  EXPECT_FALSE(DecimalOf(1e15).has_value());
  EXPECT_FALSE(DecimalOf(std::nan("")).has_value());
}

}  // namespace
}  // namespace nsa::constraint
