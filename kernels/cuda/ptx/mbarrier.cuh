#pragma once
// Barriers in shared memory that count arrivals and bytes (mbarrier), and barriers of some of a
// block's warps (bar.sync with a number): sm_90.

#include <cstdint>

namespace nsa::cuda {

// Every barrier is an 8-byte object in shared memory, given by its shared address. It has a phase
// bit that flips each time `arrivals` arrivals and all expected bytes have come in.

__device__ __forceinline__ void InitBarrier(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After all InitBarrier of a block, before its first barrier use by the copy engine or the cluster.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives and adds `num_bytes` to what the copy engine has to deliver in this phase.
__device__ __forceinline__ void ArriveExpectBytes(uint32_t barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
               "r"(num_bytes)
               : "memory");
}
// racecheck of compute-sanitizer takes what lanes that do not arrive on a barrier have read and
// written for unordered, and copies of all lanes of a warp for those of lane 0.
#ifdef NSA_RACECHECK
inline constexpr bool kForRacecheck = true;
#else
inline constexpr bool kForRacecheck = false;
#endif
// What a warp counts for on a barrier that its lanes arrive on through ArriveForWarp.
inline constexpr int kWarpArrivals = kForRacecheck ? 32 : 1;
// Called by the lanes of a warp once all of them are done (__syncwarp, or an instruction of the
// whole warp); `lane` is the caller's.
__device__ __forceinline__ void ArriveForWarp(int lane, uint32_t barrier) {
  if (kForRacecheck || lane == 0) Arrive(barrier);
}
// The same, and adds `num_bytes` to what the copy engine has to deliver in this phase.
__device__ __forceinline__ void ExpectForWarp(int lane, uint32_t barrier, uint32_t num_bytes) {
  if (lane == 0) {
    ArriveExpectBytes(barrier, num_bytes);
  } else if (kForRacecheck) {
    Arrive(barrier);
  }
}
// True if the phase with this parity has ended; may sleep for a while before it says no.
__device__ __forceinline__ bool TryWait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}
// The same, but never sleeps.
__device__ __forceinline__ bool TestWait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

// Returns when the phase with this parity has ended. A fresh barrier is in phase 0: waiting for
// parity 1 returns at once.
__device__ __forceinline__ void Wait(uint32_t barrier, uint32_t parity) {
  while (!TryWait(barrier, parity)) {
  }
}

// Makes this thread's ordinary writes to shared memory visible to wgmma and the copy engine; a
// barrier must follow before another thread uses them so.
__device__ __forceinline__ void FenceAsyncShared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Waits at the hardware barrier `id` (1..15; 0 is __syncthreads) for `num_threads` threads in whole
// warps.
__device__ __forceinline__ void SyncNamed(uint32_t id, uint32_t num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

// Gives registers back, or takes them, for all warps of a warpgroup. The kernel must be compiled
// with a register cap (__launch_bounds__(threads, 1)).
template <int kRegisters>
__device__ __forceinline__ void ShrinkRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void GrowRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace nsa::cuda
