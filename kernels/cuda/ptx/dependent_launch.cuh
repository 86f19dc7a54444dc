#pragma once
// Programmatic dependent launch: a kernel's blocks may start while the kernel before it still runs.
// Before sm_90 the instructions do not exist, and no kernel is launched so.

namespace nsa::cuda {

// Waits until the kernels before this one on the stream have finished and their writes can be read.
// Nothing in a kernel that was launched the ordinary way.
__device__ __forceinline__ void WaitForPrecedingKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the kernel after this one start once every block has called this or ended.
__device__ __forceinline__ void AllowFollowingKernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// For a kernel behind which others read, before their wait, what was written before this one: when
// the kernel behind starts, all before this one have ended.
__device__ __forceinline__ void WaitThenAllowFollowing() {
  WaitForPrecedingKernels();
  AllowFollowingKernel();
}

// What the other kernels of LaunchKernel begin with.
__device__ __forceinline__ void BeginDependentKernel() {
  AllowFollowingKernel();
  WaitForPrecedingKernels();
}

}  // namespace nsa::cuda
