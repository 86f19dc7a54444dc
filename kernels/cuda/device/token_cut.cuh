#pragma once
// Which tokens of a row of logits survive top_k and top_p, found by one block without sorting the
// vocabulary, and the parts of sampling that go through a row in the order of its ids.
//
// Probabilities are summed as integers in units of 2^-40 of the most likely token's, so that sums
// do not depend on the order of addition. kMaxSampleVocab tokens cannot overflow.

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cuda/device/reduce.cuh"

namespace nsa::cuda {

inline constexpr int kSampleThreads = 1024;
inline constexpr int kSampleWarps = kSampleThreads / kWarpThreads;
inline constexpr int kCutBins = 2048;
inline constexpr double kMassUnit = 1099511627776.0;  // 2^40
inline constexpr int64_t kMaxSampleVocab = 1 << 23;

// A logit that can be ranked: NaN is as unlikely as -inf, +inf is the largest finite number (so
// that differences stay defined), -0 is 0.
__device__ __forceinline__ float CleanLogit(float logit) {
  if (isnan(logit)) return -INFINITY;
  return fminf(logit, std::numeric_limits<float>::max()) + 0.0F;
}

// Keys order like the logits they are made from.
__device__ __forceinline__ uint32_t LogitKey(float clean_logit) {
  const uint32_t bits = __float_as_uint(clean_logit);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ __forceinline__ float LogitOfKey(uint32_t key) {
  return __uint_as_float((key & 0x80000000U) != 0 ? key ^ 0x80000000U : ~key);
}

// One row of logits and how its tokens are weighed: exp((logit - max) / temperature).
struct LogitRow {
  const float* logits;
  int32_t vocab;
  float max;  // the largest clean logit; finite
  float temperature;

  __device__ __forceinline__ float Weight(float clean_logit) const {
    constexpr float kLog2E = 1.44269504F;
    // What a mask hides: division takes a slow way with infinities.
    if (clean_logit == -INFINITY) return 0;
    // Divided, not multiplied by an inverse: 0 stays 0 for the smallest temperature.
    return exp2f((clean_logit - max) / temperature * kLog2E);
  }
  __device__ __forceinline__ uint64_t Mass(float clean_logit) const {
    return static_cast<uint64_t>(static_cast<double>(Weight(clean_logit)) * kMassUnit);
  }
};

// A prefix of the tokens in the order "larger logit first, then lower id": every token with a key
// above `key`, and the first num_at_key of those that have it. At first, all tokens.
struct TokenCut {
  uint32_t key = 0;
  int32_t num_at_key = std::numeric_limits<int32_t>::max();
};

struct CutShared {
  unsigned long long mass[kCutBins];
  int32_t count[kCutBins];
  unsigned long long warp_mass[kMaxWarps];
  int32_t warp_count[kMaxWarps];
  unsigned long long above;  // mass of what lies above the bin that was found
  unsigned long long target;
  int32_t bin;
};

// Calls visit(id, logit) for every id that is this thread's, ascending. Several loads are in flight
// at a time: the row comes from L2, and its latency is what sampling waits for.
template <typename Visit>
__device__ __forceinline__ void ForEachLogit(const float* logits, int32_t vocab, Visit visit) {
  constexpr int kBatch = 8;
  for (auto first = static_cast<int32_t>(threadIdx.x); first < vocab;
       first += kBatch * kSampleThreads) {
    float batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      batch[i] = logits[min(first + i * kSampleThreads, vocab - 1)];
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (first + i * kSampleThreads < vocab) visit(first + i * kSampleThreads, batch[i]);
    }
  }
}

// What is summed up: 1 per token for top_k, its probability for top_p.
enum class Measure : uint8_t { kCount, kMass };

// Level 0 cuts the logits into bins of 1/64 below the maximum, which spread the tokens of any
// language model; levels 1 to 3 cut the keys of one such bin into digits.
inline constexpr int kNumLevels = 4;
__device__ __forceinline__ int BinAt(int level, const LogitRow& row, float clean, uint32_t key) {
  constexpr float kBinsPerUnit = 64;
  constexpr int kDigitBits = 11;
  switch (level) {
    case 0:
      return kCutBins - 1 -
             static_cast<int>(fminf((row.max - clean) * kBinsPerUnit, float{kCutBins - 1}));
    case 1:
      return static_cast<int>(key >> (32 - kDigitBits));
    case 2:
      return static_cast<int>(key >> (32 - 2 * kDigitBits)) & (kCutBins - 1);
    default:
      return static_cast<int>(key & ((1U << (32 - 2 * kDigitBits)) - 1));
  }
}

// The highest bin at which the mass from the top down, shared.above included, reaches the target;
// the lowest one that holds a token if none does. Updates above and bin. Ends with a barrier.
__device__ inline void FindBin(CutShared& shared) {
  // A warp sums up each run of bins; then one thread walks the runs and the bins of one run.
  constexpr int kRunBins = kCutBins / kSampleWarps;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  unsigned long long mass = 0;
  int32_t count = 0;
  for (int i = warp * kRunBins + lane; i < (warp + 1) * kRunBins; i += kWarpThreads) {
    mass += shared.mass[i];
    count += shared.count[i];
  }
  mass = WarpReduce(mass, AddOp());
  count = WarpReduce(count, AddOp());
  if (lane == 0) {
    shared.warp_mass[warp] = mass;
    shared.warp_count[warp] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned long long above = shared.above, above_run = above;
    int run = 0;
    for (int i = kSampleWarps - 1; i >= 0; --i) {
      if (shared.warp_count[i] == 0) continue;
      run = i;
      above_run = above;
      above += shared.warp_mass[i];
      if (above >= shared.target) break;
    }
    above = above_run;
    for (int bin = (run + 1) * kRunBins - 1; bin >= run * kRunBins; --bin) {
      if (shared.count[bin] == 0) continue;
      shared.bin = bin;
      shared.above = above;
      above += shared.mass[bin];
      if (above >= shared.target) break;
    }
  }
  __syncthreads();
}

// The histogram, over the bins of `level`, of the tokens that `within` keeps and that lie in the
// given bins of the levels before. Tokens at the key of `within` are alike, so they are counted by
// themselves, as many as it keeps of them. Ends with a barrier.
template <Measure kMeasure>
__device__ void FillHistogram(const LogitRow& row, const TokenCut& within, int level,
                              const int (&bins)[kNumLevels], CutShared& shared) {
  const auto add = [&](int bin, int32_t num, float clean) {
    atomicAdd(&shared.count[bin], num);
    const auto each = kMeasure == Measure::kMass ? row.Mass(clean) : 1;
    atomicAdd(&shared.mass[bin], static_cast<unsigned long long>(num) * each);
  };
  for (int i = static_cast<int>(threadIdx.x); i < kCutBins; i += kSampleThreads) {
    shared.mass[i] = 0;
    shared.count[i] = 0;
  }
  __syncthreads();
  int32_t num_at_key = 0;
  ForEachLogit(row.logits, row.vocab, [&](int32_t, float logit) {
    const float clean = CleanLogit(logit);
    const uint32_t key = LogitKey(clean);
    bool counts = key >= within.key;
    for (int i = 0; i < level && counts; ++i) counts = BinAt(i, row, clean, key) == bins[i];
    if (!counts) return;
    if (key == within.key) {
      ++num_at_key;
    } else {
      add(BinAt(level, row, clean, key), 1, clean);
    }
  });
  num_at_key = BlockReduce(num_at_key, AddOp(), shared.warp_count);
  if (threadIdx.x == 0 && num_at_key > 0) {
    const float clean = LogitOfKey(within.key);
    add(BinAt(level, row, clean, within.key), min(num_at_key, within.num_at_key), clean);
  }
  __syncthreads();
}

// The cut at which the measure of what `within` keeps reaches target_of(its total): at least one
// token.
template <Measure kMeasure, typename TargetOf>
__device__ TokenCut FindCut(const LogitRow& row, const TokenCut& within, TargetOf target_of,
                            CutShared& shared) {
  int bins[kNumLevels] = {};
  int32_t num_at_key = 0;
  unsigned long long mass_at_key = 0;
  for (int level = 0; level < kNumLevels; ++level) {
    FillHistogram<kMeasure>(row, within, level, bins, shared);
    if (level == 0) {
      unsigned long long mass = 0;
      for (int i = static_cast<int>(threadIdx.x); i < kCutBins; i += kSampleThreads) {
        mass += shared.mass[i];
      }
      const unsigned long long total = BlockReduce(mass, AddOp(), shared.warp_mass);
      if (threadIdx.x == 0) {
        shared.target = target_of(total);
        shared.above = 0;
      }
      __syncthreads();
    }
    FindBin(shared);
    bins[level] = shared.bin;
    num_at_key = shared.count[shared.bin];
    mass_at_key = shared.mass[shared.bin];
    __syncthreads();  // the histogram may be cleared
  }
  // As many tokens of equal mass as are needed on top of what lies above.
  const unsigned long long each = mass_at_key / static_cast<unsigned long long>(num_at_key);
  const unsigned long long missing =
      shared.target > shared.above ? shared.target - shared.above : 0;
  const unsigned long long needed =
      each == 0 ? static_cast<unsigned long long>(num_at_key) : (missing + each - 1) / each;
  const auto limit = static_cast<unsigned long long>(num_at_key);
  TokenCut cut;
  cut.key = static_cast<uint32_t>(bins[1]) << 21 | static_cast<uint32_t>(bins[2]) << 10 |
            static_cast<uint32_t>(bins[3]);
  cut.num_at_key = static_cast<int32_t>(max(1ULL, min(needed, limit)));
  __syncthreads();  // target and above have been read
  return cut;
}

// The ids of one warp: every warp has a run of neighbouring ids, a multiple of 32 of them.
struct WarpIds {
  int32_t begin, end;
};
__device__ __forceinline__ WarpIds IdsOfWarp(int32_t vocab) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int32_t per_warp = (vocab + kSampleThreads - 1) / kSampleThreads * kWarpThreads;
  return {min(vocab, warp * per_warp), min(vocab, (warp + 1) * per_warp)};
}

// Calls visit(id, clean logit, is_kept) for every id of the warp's, 32 at a time in ascending
// order, by all lanes together; ids from `end` on are not kept. num_at_key of the tokens that have
// the cut's key come before the warp's ids. Stops when visit returns false.
template <typename Visit>
__device__ void ForEachKept(const LogitRow& row, const TokenCut& cut, WarpIds ids,
                            int32_t num_at_key, Visit visit) {
  constexpr int kBatch = 8;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  for (int32_t first = ids.begin; first < ids.end; first += kBatch * kWarpThreads) {
    float batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int32_t id = first + i * kWarpThreads + lane;
      batch[i] = id < ids.end ? CleanLogit(row.logits[id]) : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int32_t id = first + i * kWarpThreads + lane;
      const uint32_t key = LogitKey(batch[i]);
      const bool at_key = id < ids.end && key == cut.key;
      const uint32_t lanes = __ballot_sync(kAllLanes, at_key);
      const int32_t rank = num_at_key + __popc(lanes & ((1U << lane) - 1));
      const bool is_kept = id < ids.end && (key > cut.key || (at_key && rank < cut.num_at_key));
      if (!visit(id, batch[i], is_kept)) return;
      num_at_key += __popc(lanes);
    }
  }
}

// How many tokens with the cut's key come before the warp's ids. Ends with a barrier.
__device__ inline int32_t NumAtKeyBefore(const LogitRow& row, const TokenCut& cut, WarpIds ids,
                                         CutShared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  int32_t count = 0;
  // No token has the key of the cut that keeps all.
  if (cut.key != TokenCut().key) {
#pragma unroll 8
    for (int32_t id = ids.begin + lane; id < ids.end; id += kWarpThreads) {
      count += LogitKey(CleanLogit(row.logits[id])) == cut.key ? 1 : 0;
    }
  }
  count = WarpReduce(count, AddOp());
  if (lane == 0) shared.warp_count[warp] = count;
  __syncthreads();
  int32_t before = 0;
  for (int i = 0; i < warp; ++i) before += shared.warp_count[i];
  __syncthreads();
  return before;
}

}  // namespace nsa::cuda
