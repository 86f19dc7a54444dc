#pragma once
// Timing of one case and the table of all cases, as text or JSON.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

namespace nsa::bench {

// Median time of one call, over at least 20 calls and 0.2 s, after a warm-up.
double MedianSeconds(absl::FunctionRef<void()> body);

struct Result {
  std::string op;
  std::string shape;
  double us = 0;
  double gb_per_s = 0;         // 0: not what the case is about
  double percent_of_read = 0;  // of the machine's read bandwidth
  double gflop_per_s = 0;      // 0: likewise
  double percent_of_fma = 0;   // of the machine's fp32 peak
};

void PrintTable(const std::vector<Result>& results);
void PrintJson(const std::vector<Result>& results);

}  // namespace nsa::bench
