// kernels_bench [--threads=N] [--json]: every CPU kernel against the machine's limits, measured in
// the same run.

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "bench/kernels/cases.h"

namespace nsa::bench {

Result MakeResult(const BenchContext& context, std::string op, std::string shape, double seconds,
                  double bytes, double operations) {
  const double gb_per_s = bytes / seconds / 1e9, gflop_per_s = operations / seconds / 1e9;
  return {.op = std::move(op),
          .shape = std::move(shape),
          .us = seconds * 1e6,
          .gb_per_s = gb_per_s,
          .percent_of_read = 100 * gb_per_s / context.machine.read_gb_per_s,
          .gflop_per_s = gflop_per_s,
          .percent_of_fma = 100 * gflop_per_s / context.machine.fma_gflop_per_s};
}

namespace {

int Run(int num_threads, bool json) {
  ThreadPool threads(num_threads);
  const BenchContext context{threads, MeasureMachine(threads)};
  std::vector<Result> results;
  for (auto cases : {LinearCases, AttentionCases, SmallCases}) {
    for (Result& result : cases(context)) results.push_back(std::move(result));
  }
  if (json) {
    PrintJson(results);
    return 0;
  }
  std::printf("%d threads; read %.1f GB/s, fp32 FMA %.0f GFLOP/s\n\n", num_threads,
              context.machine.read_gb_per_s, context.machine.fma_gflop_per_s);
  PrintTable(results);
  return 0;
}

int Usage(const char* argument) {
  std::fprintf(stderr, "unknown argument %s; usage: kernels_bench [--threads=N] [--json]\n",
               argument);
  return 1;
}

}  // namespace
}  // namespace nsa::bench

int main(int argc, char** argv) {
  constexpr std::string_view kThreads = "--threads=";
  int num_threads = static_cast<int>(std::thread::hardware_concurrency());
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      json = true;
    } else if (argument.starts_with(kThreads) && std::atoi(argv[i] + kThreads.size()) >= 1) {
      num_threads = std::atoi(argv[i] + kThreads.size());
    } else {
      return nsa::bench::Usage(argv[i]);
    }
  }
  return nsa::bench::Run(std::max(1, num_threads), json);
}
