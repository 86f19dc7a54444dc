#pragma once
// The rotation that RoPE applies at one position, shared by StoreProjections and CompressRows.

#include <cstdint>

#include "kernels/checks.h"

namespace nsa::cpu {

class RopeRotation {
 public:
  // Angles position * inv_freq[c], c in [0, num_pairs), in double: exact to fp32 for any position.
  RopeRotation(int64_t position, const float* inv_freq, int64_t num_pairs);

  // Rotates pairs (c, c + num_pairs) of `from` into `to`, which may be the same.
  void Rotate(const float* from, float* to) const {
    for (int64_t c = 0; c < num_pairs_; ++c) {
      const float a = from[c], b = from[c + num_pairs_];
      to[c] = a * cos_[c] - b * sin_[c];
      to[c + num_pairs_] = b * cos_[c] + a * sin_[c];
    }
  }

 private:
  int64_t num_pairs_;
  float cos_[kMaxHeadDim / 2], sin_[kMaxHeadDim / 2];
};

}  // namespace nsa::cpu
