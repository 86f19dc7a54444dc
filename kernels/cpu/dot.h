#pragma once
// Dot product with one fixed order of accumulation.

#include <cstdint>

namespace nsa::cpu {

// sum of x[i] * y[i] in fp32; the order depends on num alone.
float Dot(const float* x, const float* y, int64_t num);

}  // namespace nsa::cpu
