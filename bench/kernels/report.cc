#include "bench/kernels/report.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace nsa::bench {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A number, or nothing where the case has none.
std::string Cell(double value, const char* format) {
  if (value == 0) return "";
  char text[32];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

}  // namespace

double MedianSeconds(absl::FunctionRef<void()> body) {
  constexpr size_t kMinCalls = 20, kMaxCalls = 2000;
  constexpr double kMinSeconds = 0.2;
  body();
  std::vector<double> times;
  const Clock::time_point begin = Clock::now();
  while (times.size() < kMinCalls || (Seconds(begin) < kMinSeconds && times.size() < kMaxCalls)) {
    const Clock::time_point start = Clock::now();
    body();
    times.push_back(Seconds(start));
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

void PrintTable(const std::vector<Result>& results) {
  std::printf("%-22s %-34s %11s %8s %7s %9s %7s\n", "op", "shape", "us", "GB/s", "% read",
              "GFLOP/s", "% fma");
  for (const Result& r : results) {
    std::printf("%-22s %-34s %11.1f %8s %7s %9s %7s\n", r.op.c_str(), r.shape.c_str(), r.us,
                Cell(r.gb_per_s, "%.1f").c_str(), Cell(r.percent_of_read, "%.0f").c_str(),
                Cell(r.gflop_per_s, "%.0f").c_str(), Cell(r.percent_of_fma, "%.0f").c_str());
  }
}

void PrintJson(const std::vector<Result>& results) {
  std::printf("[");
  for (size_t i = 0; i < results.size(); ++i) {
    const Result& r = results[i];
    std::printf(
        "%s\n  {\"op\": \"%s\", \"shape\": \"%s\", \"us\": %.2f, \"gb_per_s\": %.2f, "
        "\"percent_of_read\": %.1f, \"gflop_per_s\": %.1f, \"percent_of_fma\": %.1f}",
        i == 0 ? "" : ",", r.op.c_str(), r.shape.c_str(), r.us, r.gb_per_s, r.percent_of_read,
        r.gflop_per_s, r.percent_of_fma);
  }
  std::printf("\n]\n");
}

}  // namespace nsa::bench
