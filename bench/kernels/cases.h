#pragma once
// The benchmark's cases by kind.

#include <vector>

#include "base/thread_pool.h"
#include "bench/kernels/machine.h"
#include "bench/kernels/report.h"

namespace nsa::bench {

struct BenchContext {
  ThreadPool& threads;
  MachineLimits machine;
};

// Decode (1 token, weights far beyond the caches) and prefill (512 tokens).
std::vector<Result> LinearCases(const BenchContext& context);
// Every NSA op and dense attention, decode and prefill, over context lengths.
std::vector<Result> AttentionCases(const BenchContext& context);
// Norms, RoPE, sampling and what else runs once per token.
std::vector<Result> SmallCases(const BenchContext& context);

// Fills in what follows from time, bytes read and operations.
Result MakeResult(const BenchContext& context, std::string op, std::string shape, double seconds,
                  double bytes, double operations);

}  // namespace nsa::bench
