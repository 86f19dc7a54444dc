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

// `f32` for results in f32; for results in bf16 or f16, which round once more on top of fp32
// arithmetic, two units in the last place.
Tolerance ToleranceOf(DType dtype, Tolerance f32);

// First NaN and infinities must be at the same places, then every element must agree absolutely or
// relatively, then the directions must agree (cosine): many small errors of one sign are one bug.
// How well they must agree follows from the relative tolerance. The message names the worst
// element.
::testing::AssertionResult IsClose(const Tensor& actual, const std::vector<double>& expected,
                                   Tolerance tolerance = {});
// The same bytes; the message names the first element that differs.
::testing::AssertionResult IsIdentical(const Tensor& actual, const Tensor& expected);

}  // namespace nsa::testing
