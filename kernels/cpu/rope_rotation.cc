#include "kernels/cpu/rope_rotation.h"

#include <cmath>

namespace nsa::cpu {

RopeRotation::RopeRotation(int64_t position, const float* inv_freq, int64_t num_pairs)
    : num_pairs_(num_pairs) {
  for (int64_t c = 0; c < num_pairs; ++c) {
    const double angle = static_cast<double>(position) * static_cast<double>(inv_freq[c]);
    cos_[c] = static_cast<float>(std::cos(angle));
    sin_[c] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace nsa::cpu
