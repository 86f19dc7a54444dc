#pragma once
// Which blocks a token of the fused decode kernel attends, from the importances of all: the scouts
// of every thread block of the cluster find out for themselves. Written for latency: it is run
// once per launch and little else happens meanwhile.

#include <cstdint>

#include "kernels/cuda/sm90/fused_decode.h"
#include "kernels/cuda/sm90/fused_decode_tile.cuh"

namespace nsa::cuda::fused_decode {

inline constexpr int kGroups = 32;   // of candidates
inline constexpr int kMaxFree = 16;  // blocks to choose besides the forced ones

// Shared memory of the choice.
struct ChoiceRoom {
  // Importances by thread, by group as every warp sees it, and of survivors.
  alignas(16) float thread_best[kThreads];
  alignas(16) float group_best[kWarps][kGroups];
  alignas(16) float survivor_importance[kGroups];
  int32_t survivors[kGroups];
  int32_t num_survivors;
  uint64_t round_best[2][kWarps];
  int32_t sorted[kMaxFusedSelected];  // the chosen blocks, ascending, and their pages
  int32_t pages[kMaxFusedSelected];
};

// The blocks [num_initial, first_local) compete for num_wanted <= kMaxFree places, which begin at
// num_first of ChoiceRoom::sorted. Methods are called by all scouts, or by one warp of them.
struct Choice {
  ChoiceRoom& room;
  const float* importances;  // [block], 16-byte aligned, readable up to a multiple of 4
  int num_initial, first_local, num_first, num_wanted;

  // Calls use(first, values) for this thread's blocks first .. first + 3: what they count as for
  // the choice, at least 0, or -1 of blocks that are forced or not there.
  template <typename Use>
  __device__ __forceinline__ void ForCandidates(const Use& use) const {
    const int tid = threadIdx.x & (kThreads - 1);
#pragma unroll 1
    for (int first = tid * 4; first < first_local; first += kThreads * 4) {
      const auto four = *reinterpret_cast<const float4*>(importances + first);
      float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int block = first + i;
        const bool is_candidate = block >= num_initial && block < first_local;
        values[i] = is_candidate ? fmaxf(values[i], 0.0F) : -1.0F;  // NaN counts as 0
      }
      use(first, values);
    }
  }
  // How many of kGroups numbers in shared memory are larger.
  static __device__ __forceinline__ int CountLarger(const float* values, float value) {
    float counts[4] = {};  // comparisons to floats need no predicates, which are few
#pragma unroll
    for (int i = 0; i < kGroups; i += 4) {
      const auto four = *reinterpret_cast<const float4*>(values + i);
      counts[0] += four.x > value ? 1.0F : 0.0F;
      counts[1] += four.y > value ? 1.0F : 0.0F;
      counts[2] += four.z > value ? 1.0F : 0.0F;
      counts[3] += four.w > value ? 1.0F : 0.0F;
    }
    return static_cast<int>((counts[0] + counts[1]) + (counts[2] + counts[3]));
  }

  // Leaves the few candidates among which are the num_wanted best in `survivors`, in any order, or
  // only their number if it is larger than kGroups. Candidates are dealt to kGroups groups; what is
  // smaller than the wanted-th best group's best cannot be chosen.
  __device__ __forceinline__ void FindSurvivors() const {
    const int tid = threadIdx.x & (kThreads - 1), lane = tid & 31, warp = tid >> 5;
    float best = -1;
    ForCandidates([&](int /*first*/, const float(&values)[4]) {
      best = fmaxf(best, fmaxf(fmaxf(values[0], values[1]), fmaxf(values[2], values[3])));
    });
    room.thread_best[tid] = best;
    if (tid == 0) room.num_survivors = 0;
    if (tid < kGroups) room.survivor_importance[tid] = -1;
    SyncScouts();
    static_assert(kGroups == 32);
    best = fmaxf(fmaxf(room.thread_best[lane], room.thread_best[kGroups + lane]),
                 fmaxf(room.thread_best[2 * kGroups + lane], room.thread_best[3 * kGroups + lane]));
    room.group_best[warp][lane] = best;  // every warp for itself
    __syncwarp();
    const bool is_among = CountLarger(room.group_best[warp], best) < num_wanted;
    // Non-negative floats are ordered like their bits; a group without candidates lets all survive.
    const float threshold = __uint_as_float(
        __reduce_min_sync(kFullMask, is_among ? __float_as_uint(fmaxf(best, 0.0F)) : 0xffffffffu));
    ForCandidates([&](int first, const float(&values)[4]) {
      int num_found = 0;
#pragma unroll
      for (const float value : values) num_found += value >= threshold ? 1 : 0;
      if (num_found == 0) return;
      int place = atomicAdd(&room.num_survivors, num_found);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (values[i] < threshold) continue;
        if (place < kGroups) {
          room.survivors[place] = first + i;
          room.survivor_importance[place] = values[i];
        }
        ++place;
      }
    });
  }

  // One warp: the num_wanted best of at most kGroups survivors, ascending, with their pages, to
  // `sorted`. Of equal importances the lower block is better.
  __device__ __forceinline__ void RankSurvivors(const int32_t* block_pages) const {
    const int lane = threadIdx.x & 31;
    const float importance = room.survivor_importance[lane];
    const bool is_survivor = importance >= 0;
    const int block = is_survivor ? room.survivors[lane] : 0;
    const int page = block_pages[block];  // there when the place is known
    int rank_of_lane = CountLarger(room.survivor_importance, importance);
    unsigned equal = __match_any_sync(kFullMask, __float_as_uint(importance)) & ~(1u << lane);
    if (__any_sync(kFullMask, is_survivor && equal != 0)) {
#pragma unroll 1
      for (int i = 0; i < kGroups; ++i) {
        const int other = __shfl_sync(kFullMask, block, i);
        if ((equal >> i) & 1) rank_of_lane += other < block ? 1 : 0;
      }
    }
    const bool is_chosen = is_survivor && rank_of_lane < num_wanted;
    WriteSorted(is_chosen, block, page);
  }

  // One warp: the chosen ones of its lanes' blocks, ascending, to `sorted`.
  __device__ __forceinline__ void WriteSorted(bool is_chosen, int block, int page) const {
    const int lane = threadIdx.x & 31;
    // Blocks as floats: exact, there are less than 2^24.
    float* const negated = room.group_best[0];
    const float mine = is_chosen ? -static_cast<float>(block) : -INFINITY;
    negated[lane] = mine;
    __syncwarp();
    const int place = num_first + CountLarger(negated, mine);
    if (is_chosen) room.sorted[place] = block, room.pages[place] = page;
  }

  // The same for any number of survivors, by all scouts: round after round the best one that is
  // left.
  __device__ __forceinline__ void RankByRounds(const int32_t* block_pages) const {
    const int tid = threadIdx.x & (kThreads - 1), lane = tid & 31, warp = tid >> 5;
    uint64_t last = ~uint64_t{0};
    int mine = -1;
#pragma unroll 1
    for (int round = 0; round < num_wanted; ++round) {
      uint64_t best = 0;  // importance, then the lower block
      ForCandidates([&](int first, const float(&values)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (values[i] < 0) continue;
          const uint64_t key = static_cast<uint64_t>(__float_as_uint(values[i])) << 32 |
                               ~static_cast<uint32_t>(first + i);
          if (key < last && key > best) best = key;
        }
      });
      const auto high = __reduce_max_sync(kFullMask, static_cast<uint32_t>(best >> 32));
      const auto low = __reduce_max_sync(
          kFullMask, static_cast<uint32_t>(best >> 32) == high ? static_cast<uint32_t>(best) : 0);
      uint64_t* const bests = room.round_best[round & 1];
      if (lane == 0) bests[warp] = static_cast<uint64_t>(high) << 32 | low;
      SyncScouts();
      last = max(max(bests[0], bests[1]), max(bests[2], bests[3]));
      if (lane == round) mine = static_cast<int>(~static_cast<uint32_t>(last));
    }
    if (warp == 0) WriteSorted(mine >= 0, max(mine, 0), mine < 0 ? -1 : block_pages[mine]);
  }
};

}  // namespace nsa::cuda::fused_decode
