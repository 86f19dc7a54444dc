#pragma once
// What the machine can do at most, measured in the same run as the kernels.

#include "base/thread_pool.h"

namespace nsa::bench {

struct MachineLimits {
  double read_gb_per_s = 0;  // all threads together, from a buffer far beyond the last-level cache
  double fma_gflop_per_s = 0;  // fp32 fused multiply-add in registers, 2 operations each
};
MachineLimits MeasureMachine(ThreadPool& threads);

}  // namespace nsa::bench
