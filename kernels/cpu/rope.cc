#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/rope_rotation.h"

namespace nsa::cpu {

RopeRotation::RopeRotation(int64_t position, const float* inv_freq, int64_t num_pairs)
    : num_pairs_(num_pairs) {
  for (int64_t c = 0; c < num_pairs; ++c) {
    const double angle = static_cast<double>(position) * static_cast<double>(inv_freq[c]);
    cos_[c] = static_cast<float>(std::cos(angle));
    sin_[c] = static_cast<float>(std::sin(angle));
  }
}

void ApplyRope(const RopeArgs& args, const Stream& stream) {
  const int64_t num_heads = args.x.dim(1), d = args.x.dim(2);
  const int32_t* positions = args.positions.data<int32_t>();
  ParallelForRows(stream, args.x.dim(0), /*min_rows=*/4, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      if (positions[token] < 0) continue;
      const RopeRotation rotation(positions[token], args.inv_freq.data<float>(), d / 2);
      float* heads = args.x.data<float>() + token * num_heads * d;
      for (int64_t head = 0; head < num_heads; ++head) rotation.Rotate(heads + head * d);
    }
  });
}

}  // namespace nsa::cpu
