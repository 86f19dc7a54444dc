#pragma once
// One warp finds a token's most important blocks among those that are not forced; ties go to the
// lower index. All 32 lanes call each function together.

#include <climits>
#include <cstdint>

#include "kernels/cuda/device/reduce.cuh"

namespace nsa::cuda {

struct SelectRule {
  int32_t block_tokens, num_selected, num_initial, num_local;

  __device__ int NumFree() const { return num_selected - num_initial - num_local; }
};

inline constexpr int kMaxCandidates = 32;  // one per lane

// A block and its importance as one number: the better of two blocks has the larger one. 0: none.
using RankKey = uint64_t;
__device__ __forceinline__ RankKey MakeRankKey(float importance, int block) {
  return static_cast<RankKey>(__float_as_uint(importance)) << 32 | ~static_cast<uint32_t>(block);
}
__device__ __forceinline__ int BlockOf(RankKey key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

// How many of the kMaxCandidates values at `list`, in shared memory, are larger.
__device__ __forceinline__ int CountLarger(const int* list, int mine) {
  int count = 0;
#pragma unroll
  for (int i = 0; i < kMaxCandidates; i += 4) {
    const int4 keys = *reinterpret_cast<const int4*>(list + i);
    count += (keys.x > mine ? 1 : 0) + (keys.y > mine ? 1 : 0) + (keys.z > mine ? 1 : 0) +
             (keys.w > mine ? 1 : 0);
  }
  return count;
}

// How many of the lanes in `members` have a better value: a larger one, or the same in a lower
// lane. All lanes.
__device__ __forceinline__ int CountBetter(unsigned members, float mine) {
  const int lane = threadIdx.x % 32;
  int count = 0;
  for (; members != 0; members &= members - 1) {
    const int other_lane = __ffs(members) - 1;
    const float other = __shfl_sync(kAllLanes, mine, other_lane);
    count += other > mine || (other == mine && other_lane < lane) ? 1 : 0;
  }
  return count;
}

// Importances in shared memory, by block: at least 0, or -1 of blocks that cannot be chosen, those
// from `end` to the next multiple of kStep among them.
struct FreeBlocks {
  static constexpr int kPerLane = 4;
  static constexpr int kStep = 32 * kPerLane;

  const float* importance;  // 16-byte aligned
  int end;

  // Those of this lane of the step that begins at block `base`.
  __device__ __forceinline__ void Load(int base, float (&values)[kPerLane]) const {
    const float4 loaded =
        *reinterpret_cast<const float4*>(importance + base + threadIdx.x % 32 * kPerLane);
    values[0] = loaded.x, values[1] = loaded.y, values[2] = loaded.z, values[3] = loaded.w;
  }
};

// A value that at least `num_wanted` <= 32 of the lanes' values `best` reach, about the
// num_wanted-th best of them. `list` is of use to no one before and after.
__device__ __forceinline__ float LowerBound(float best, int num_wanted, int* list) {
  const int lane = threadIdx.x % 32;
  // The lane's index in the lowest bits makes all values different.
  constexpr int kLaneBits = 31;
  const int key = (__float_as_int(best) & ~kLaneBits) | lane;
  list[lane] = key;
  __syncwarp();
  const unsigned holder = __ballot_sync(kAllLanes, CountLarger(list, key) == num_wanted - 1);
  const float bound = __int_as_float(list[__ffs(holder) - 1] & ~kLaneBits);
  __syncwarp();
  return fmaxf(bound, 0.0f);
}

// Writes the first kMaxCandidates blocks that reach `bound` >= 0, ascending, to `list` and returns
// how many reach it.
__device__ __forceinline__ int CollectCandidates(const FreeBlocks& blocks, float bound, int* list) {
  const int lane = threadIdx.x % 32;
  const unsigned lower_lanes = (1u << lane) - 1;
  int num_found = 0;
#pragma unroll 2
  for (int base = 0; base < blocks.end; base += FreeBlocks::kStep) {
    float values[FreeBlocks::kPerLane];
    blocks.Load(base, values);
    int place = num_found;
#pragma unroll
    for (const float value : values) {
      const unsigned finders = __ballot_sync(kAllLanes, value >= bound);
      place += __popc(finders & lower_lanes);
      num_found += __popc(finders);
    }
#pragma unroll
    for (int i = 0; i < FreeBlocks::kPerLane; ++i) {
      if (values[i] >= bound) {
        if (place < kMaxCandidates) list[place] = base + lane * FreeBlocks::kPerLane + i;
        ++place;
      }
    }
  }
  __syncwarp();
  return num_found;
}

// Lane i's candidate: the i-th of `num_found` in `list`, -1 and importance -1 if there is none.
struct Candidate {
  int block = -1;
  float value = -1;

  __device__ __forceinline__ Candidate(const FreeBlocks& blocks, const int* list, int num_found) {
    const int lane = threadIdx.x % 32;
    if (lane >= num_found) return;
    block = list[lane];
    value = blocks.importance[block];
  }
};

// The blocks of the lanes that have `chosen` theirs, which ascend, to `out`.
__device__ __forceinline__ void WriteChosen(bool chosen, int block, int32_t* out) {
  const unsigned choice = __ballot_sync(kAllLanes, chosen);
  if (chosen) out[__popc(choice & ((1u << threadIdx.x % 32) - 1))] = block;
}

// Slower, for any number of candidates: lane i gets the key of the i-th best block, i < num_wanted.
__device__ __forceinline__ RankKey BestByRounds(const FreeBlocks& blocks, int num_wanted) {
  const int lane = threadIdx.x % 32;
  RankKey last = ~RankKey{0}, mine = 0;
  for (int round = 0; round < num_wanted; ++round) {
    RankKey best = 0;
    for (int base = 0; base < blocks.end; base += FreeBlocks::kStep) {
      float values[FreeBlocks::kPerLane];
      blocks.Load(base, values);
#pragma unroll
      for (int i = 0; i < FreeBlocks::kPerLane; ++i) {
        const RankKey key = MakeRankKey(values[i], base + lane * FreeBlocks::kPerLane + i);
        if (values[i] >= 0 && key < last && key > best) best = key;
      }
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const RankKey other = __shfl_xor_sync(kAllLanes, best, distance);
      if (other > best) best = other;
    }
    if (lane == round) mine = best;
    last = best;
  }
  return mine;
}

// The `num_wanted` best of `blocks`, which has at least so many, ascending, to `out`. `best`: the
// best value of each lane's.
__device__ __forceinline__ void WriteBest(const FreeBlocks& blocks, float best, int num_wanted,
                                          int* list, int32_t* out) {
  const int num_found = CollectCandidates(blocks, LowerBound(best, num_wanted, list), list);
  if (num_found <= kMaxCandidates) {
    const Candidate mine(blocks, list, num_found);
    const unsigned members = __ballot_sync(kAllLanes, mine.block >= 0);
    const int num_better = CountBetter(members, mine.value);
    WriteChosen(mine.block >= 0 && num_better < num_wanted, mine.block, out);
  } else {
    const int lane = threadIdx.x % 32;
    const RankKey key = BestByRounds(blocks, num_wanted);
    const int block = BlockOf(key);
    list[lane] = lane < num_wanted ? -block : INT_MIN;
    __syncwarp();
    if (lane < num_wanted) out[CountLarger(list, -block)] = block;
  }
  __syncwarp();  // the list may be written again
}

}  // namespace nsa::cuda
