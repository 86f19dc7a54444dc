#pragma once
// One warp ranks a token's blocks by importance: forced blocks, then the best others; ties go to
// the lower index. All 32 lanes call each function together.

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
__device__ __forceinline__ int CountLarger(const RankKey* list, RankKey mine) {
  int count = 0;
#pragma unroll
  for (int i = 0; i < kMaxCandidates; i += 2) {
    const ulonglong2 keys = *reinterpret_cast<const ulonglong2*>(list + i);
    count += (keys.x > mine ? 1 : 0) + (keys.y > mine ? 1 : 0);
  }
  return count;
}
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

// Importances of the blocks [first, end), readable up to the next multiple of 128 blocks.
struct FreeBlocks {
  static constexpr int kPerLane = 4;
  static constexpr int kStep = 32 * kPerLane;

  const float* importance;  // indexed by block, 16-byte aligned
  int first, end;

  // This lane's blocks of the step that begins at block `base`; -1 outside of [first, end). A NaN
  // counts as 0, so that bad numbers never make a bad index.
  __device__ __forceinline__ void Load(int base, float (&values)[kPerLane]) const {
    const int mine = base + threadIdx.x % 32 * kPerLane;
    const float4 loaded = *reinterpret_cast<const float4*>(importance + mine);
    const float raw[kPerLane] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      values[i] = mine + i >= first && mine + i < end ? fmaxf(raw[i], 0.0f) : -1.0f;
    }
  }
};

// A value that at least `num_wanted` <= 32 blocks reach: about the num_wanted-th best of the lanes'
// best.
__device__ __forceinline__ float LowerBound(const FreeBlocks& blocks, int num_wanted, int* list) {
  const int lane = threadIdx.x % 32;
  float best = -1.0f;
#pragma unroll 2
  for (int base = 0; base < blocks.end; base += FreeBlocks::kStep) {
    float values[FreeBlocks::kPerLane];
    blocks.Load(base, values);
#pragma unroll
    for (const float value : values) best = fmaxf(best, value);
  }
  // The lane's index in the lowest bits makes all values different.
  constexpr int kLaneBits = 31;
  const int key = (__float_as_int(best) & ~kLaneBits) | lane;
  list[lane] = key;
  __syncwarp();
  const unsigned holder = __ballot_sync(kAllLanes, CountLarger(list, key) == num_wanted - 1);
  return __int_as_float(list[__ffs(holder) - 1] & ~kLaneBits);
}

// Writes the keys of blocks that reach `bound`, ascending by block and then 0, to `list` of
// kMaxCandidates and returns how many there are, which may be more.
__device__ __forceinline__ int CollectCandidates(const FreeBlocks& blocks, float bound,
                                                 RankKey* list) {
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
      const unsigned finders = __ballot_sync(kAllLanes, value >= fmaxf(bound, 0.0f));
      place += __popc(finders & lower_lanes);
      num_found += __popc(finders);
    }
#pragma unroll
    for (int i = 0; i < FreeBlocks::kPerLane; ++i) {
      if (values[i] >= fmaxf(bound, 0.0f)) {
        if (place < kMaxCandidates) {
          list[place] = MakeRankKey(values[i], base + lane * FreeBlocks::kPerLane + i);
        }
        ++place;
      }
    }
  }
  if (lane >= num_found) list[lane] = 0;
  __syncwarp();
  return num_found;
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

// The `num_wanted` best of `blocks`, which has at least so many, ascending, to `out`.
__device__ __forceinline__ void WriteBest(const FreeBlocks& blocks, int num_wanted, RankKey* list,
                                          int32_t* out) {
  const int lane = threadIdx.x % 32;
  const float bound = LowerBound(blocks, num_wanted, reinterpret_cast<int*>(list));
  __syncwarp();  // all have read the list
  if (CollectCandidates(blocks, bound, list) <= kMaxCandidates) {
    const RankKey mine = list[lane];
    const bool chosen = mine != 0 && CountLarger(list, mine) < num_wanted;
    const unsigned choice = __ballot_sync(kAllLanes, chosen);
    if (chosen) out[__popc(choice & ((1u << lane) - 1))] = BlockOf(mine);
  } else {
    const RankKey mine = BestByRounds(blocks, num_wanted);
    __syncwarp();
    list[lane] = lane < num_wanted ? static_cast<uint32_t>(mine) : 0;
    __syncwarp();
    // The lower half of a key falls as the block rises.
    if (lane < num_wanted) out[CountLarger(list, static_cast<uint32_t>(mine))] = BlockOf(mine);
  }
  __syncwarp();  // the list may be written again
}

// The choice of a token at `position`, num_selected blocks to `out`. `importance` is read only if a
// block has to be left out.
__device__ __forceinline__ void WriteChoice(const SelectRule& rule, int position,
                                            const float* importance, RankKey* list, int32_t* out) {
  const int lane = threadIdx.x % 32;
  const int own = position / rule.block_tokens;
  if (own < rule.num_selected) {
    if (lane < rule.num_selected) out[lane] = lane <= own ? lane : -1;
    return;
  }
  const int first_local = own - rule.num_local + 1;
  if (lane < rule.num_initial) out[lane] = lane;
  if (lane < rule.num_local) {
    out[rule.num_selected - rule.num_local + lane] = first_local + lane;
  }
  if (rule.NumFree() > 0) {
    WriteBest({importance, rule.num_initial, first_local}, rule.NumFree(), list,
              out + rule.num_initial);
  }
}

}  // namespace nsa::cuda
