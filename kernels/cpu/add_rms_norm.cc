#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

// Sixteen partial sums in a fixed order: vectorisable, and the same for every batch.
float SumOfSquares(const float* x, int64_t num) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= num; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  }
  for (int64_t lane = 0; i < num; ++i, ++lane) lanes[lane] += x[i] * x[i];
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void AddRmsNorm(const AddRmsNormArgs& args, const Stream& stream) {
  const int64_t dim = args.x.dim(1);
  const float* weight = args.weight.data<float>();
  ParallelForRows(stream, args.x.dim(0), /*min_rows=*/4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = args.x.data<float>() + row * dim;
      if (!args.y.empty()) {
        const float* y = args.y.data<float>() + row * dim;
        for (int64_t i = 0; i < dim; ++i) x[i] += y[i];
      }
      float* out = args.out.data<float>() + row * dim;
      const float mean = SumOfSquares(x, dim) / static_cast<float>(dim);
      const float scale = 1.0F / std::sqrt(mean + args.epsilon);
      for (int64_t i = 0; i < dim; ++i) out[i] = x[i] * scale * weight[i];
    }
  });
}

}  // namespace nsa::cpu
