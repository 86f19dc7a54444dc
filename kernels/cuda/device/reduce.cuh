#pragma once
// Reductions over a warp and a block, in an order that depends on the block's size alone.

#include <cstdint>

namespace nsa::cuda {

inline constexpr int kWarpThreads = 32;
inline constexpr int kMaxWarps = 32;  // of a block
inline constexpr uint32_t kAllLanes = 0xffffffffU;

struct AddOp {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct MaxOp {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

// Every lane gets op over the warp's values.
template <typename T, typename Op>
__device__ __forceinline__ T WarpReduce(T value, Op op) {
#pragma unroll
  for (int step = kWarpThreads / 2; step > 0; step /= 2) {
    value = op(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

// Over the four lanes that share a row of a tensor core's result.
__device__ __forceinline__ float QuadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float QuadSum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Every thread gets op over the values of the block's threads, a multiple of 32. `shared` holds
// kMaxWarps elements; it may be used again at once.
template <typename T, typename Op>
__device__ T BlockReduce(T value, Op op, T* shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int num_warps = static_cast<int>(blockDim.x) / kWarpThreads;
  value = WarpReduce(value, op);
  __syncthreads();  // the previous use of `shared` is over
  if (threadIdx.x % kWarpThreads == 0) shared[warp] = value;
  __syncthreads();
  T result = shared[0];
  for (int i = 1; i < num_warps; ++i) result = op(result, shared[i]);
  return result;
}

// Inclusive sum over the lanes up to this one.
template <typename T>
__device__ __forceinline__ T WarpPrefixSum(T value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
#pragma unroll
  for (int step = 1; step < kWarpThreads; step *= 2) {
    const T other = __shfl_up_sync(kAllLanes, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

}  // namespace nsa::cuda
