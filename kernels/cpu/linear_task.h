#pragma once
// One task of Linear, the same type for every SIMD target.

#include <cstdint>

#include "kernels/transformer.h"

namespace nsa::cpu {

// Tokens [first_token, end_token) times panels [first_panel, end_panel).
struct LinearTask {
  const LinearArgs& args;
  int64_t first_token, end_token;
  int64_t first_panel, end_panel;
};

}  // namespace nsa::cpu
