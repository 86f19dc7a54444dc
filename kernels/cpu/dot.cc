#include "kernels/cpu/dot.h"

namespace nsa::cpu {

float Dot(const float* x, const float* y, int64_t num) {
  float sum = 0;
  for (int64_t i = 0; i < num; ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace nsa::cpu
