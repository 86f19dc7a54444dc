#pragma once
// When each block of the fused decode kernel passed which stage: for bench/kernels/gpu, compiled
// with NSA_DECODE_STAGES. Without, Stamp() is nothing.

#include <cstdint>

namespace nsa::cuda::fused_decode {

// nsa_capi.py has the same list. The scouts' stages overlap those of the other warps.
enum class Stage {
  kEntered,               // the block runs
  kPrepared,              // the token's position is known, all blocks of the cluster run
  kStarted,               // the kernel before has finished
  kFirstTile,             // of compressed rows is there
  kCompressed,            // compressed attention is done and sent
  kSumsExchanged,         // scouts: the cluster's maxima and sums are here
  kWeighed,               // scouts: this block's importances are sent
  kImportancesExchanged,  // scouts: the cluster's are here
  kChosen,                // scouts: the blocks are known
  kWindow,                // window attention is done and sent
  kFirstChosenTile,       // of the chosen blocks is there
  kSelected,              // the chosen blocks' attention is done and sent
  kResultsExchanged,      // scouts: the cluster's results are here
  kSummed,                // scouts: the output is written
  kNumStages
};

#ifdef NSA_DECODE_STAGES
inline constexpr int kNumStages = static_cast<int>(Stage::kNumStages);
inline constexpr int kMaxStampedBlocks = 4096;
// [block][stage], nanoseconds of the GPU's timer.
static __device__ uint64_t stage_stamps[kMaxStampedBlocks][kNumStages];

__device__ __forceinline__ void Stamp(Stage stage) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  if ((threadIdx.x & 127) != 0 || block >= kMaxStampedBlocks) return;
  uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time)::"memory");
  stage_stamps[block][static_cast<int>(stage)] = time;
}
#else
__device__ __forceinline__ void Stamp(Stage /*stage*/) {}
#endif

}  // namespace nsa::cuda::fused_decode
