#pragma once
// Comparison of a computed tensor with a reference in double precision.

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/tensor.h"

namespace nsa::testing {

struct Tolerance {
  double absolute = 1e-5;
  double relative = 1e-5;
};

// First NaN and infinities must be at the same places, then every element must agree absolutely or
// relatively, then the directions must agree (cosine): many small errors of one sign are one bug.
// The message names the worst element.
::testing::AssertionResult IsClose(const Tensor& actual, const std::vector<double>& expected,
                                   Tolerance tolerance = {});
// The same bytes; the message names the first element that differs.
::testing::AssertionResult IsIdentical(const Tensor& actual, const Tensor& expected);

}  // namespace nsa::testing
