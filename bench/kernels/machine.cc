#include "bench/kernels/machine.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "bench/kernels/report.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/kernels/machine.cc"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Four independent sums, so that the loads, not the additions, are the limit.
float SumOf(const float* from, int64_t num) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  for (int64_t i = 0; i + 4 * lanes <= num; i += 4 * lanes) {
    s0 = hn::Add(s0, hn::LoadU(d, from + i));
    s1 = hn::Add(s1, hn::LoadU(d, from + i + lanes));
    s2 = hn::Add(s2, hn::LoadU(d, from + i + 2 * lanes));
    s3 = hn::Add(s3, hn::LoadU(d, from + i + 3 * lanes));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

// Returns the multiply-adds per round; `result` keeps the loop alive.
int64_t FmaRounds(int64_t num_rounds, float* result) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int kChains = 12;  // more than latency times throughput
  V sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = hn::Set(d, static_cast<float>(i));
  const V factor = hn::Set(d, 0.999F), addend = hn::Set(d, *result);
  for (int64_t round = 0; round < num_rounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = hn::MulAdd(sums[i], factor, addend);
  }
  V total = sums[0];
  for (int i = 1; i < kChains; ++i) total = hn::Add(total, sums[i]);
  *result = hn::GetLane(total);
  return kChains * static_cast<int64_t>(hn::Lanes(d));
}

}  // namespace nsa::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::bench {
namespace {

HWY_EXPORT(SumOf);
HWY_EXPORT(FmaRounds);

// Calls are as long as those of a kernel (about a millisecond), so that other work on the machine
// disturbs both alike.
double MeasureRead(ThreadPool& threads) {
  constexpr int64_t kNumFloats = int64_t{1} << 28;  // 1 GiB
  constexpr int64_t kCallFloats = int64_t{1} << 22;
  constexpr int64_t kPiece = int64_t{1} << 18;
  const auto buffer = std::make_unique_for_overwrite<float[]>(kNumFloats);
  std::vector<float> sums(kNumFloats / kPiece);
  threads.ParallelFor(kNumFloats / kPiece, [&](int64_t piece, int) {
    std::memset(buffer.get() + piece * kPiece, 0, kPiece * sizeof(float));
  });
  int64_t start = 0;
  const double seconds = MedianSeconds([&] {
    threads.ParallelFor(kCallFloats / kPiece, [&](int64_t piece, int) {
      const int64_t at = start + piece * kPiece;
      sums[at / kPiece] = HWY_DYNAMIC_DISPATCH(SumOf)(buffer.get() + at, kPiece);
    });
    start = (start + kCallFloats) % kNumFloats;
  });
  return kCallFloats * sizeof(float) / seconds / 1e9;
}

double MeasureFma(ThreadPool& threads) {
  constexpr int64_t kRounds = 200'000;
  const int num_threads = threads.num_threads();
  std::vector<float> results(static_cast<size_t>(num_threads) * 16, 1.0F);
  int64_t per_round = 0;
  const double seconds = MedianSeconds([&] {
    threads.ParallelFor(num_threads, [&](int64_t i, int) {
      const int64_t lanes = HWY_DYNAMIC_DISPATCH(FmaRounds)(kRounds, &results[i * 16]);
      if (i == 0) per_round = lanes;
    });
  });
  return 2.0 * static_cast<double>(per_round * kRounds * num_threads) / seconds / 1e9;
}

}  // namespace

MachineLimits MeasureMachine(ThreadPool& threads) {
  return {.read_gb_per_s = MeasureRead(threads), .fma_gflop_per_s = MeasureFma(threads)};
}

}  // namespace nsa::bench
#endif
