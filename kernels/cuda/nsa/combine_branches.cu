// CombineBranches: a thread per pack of outputs. Bytes: the branches and the output once; bound by
// memory.

#include "kernels/backends.h"
#include "kernels/cuda/device/convert.cuh"
#include "kernels/cuda/launch.h"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float Sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

// Rows of d_v elements, a multiple of kPack; gates [rows, 3].
template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads)
    CombineKernel(const float* gates, const float* cmp, const float* sel, const float* win, T* out,
                  int64_t d_v, int64_t num_packs) {
  const int64_t pack = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack >= num_packs) return;
  const int64_t row = pack * kPack / d_v;
  const float gate_cmp = Sigmoid(gates[row * 3]);
  const float gate_sel = Sigmoid(gates[row * 3 + 1]);
  const float gate_win = Sigmoid(gates[row * 3 + 2]);
  float c[kPack], s[kPack], w[kPack], sum[kPack];
  LoadPack(cmp + pack * kPack, c);
  LoadPack(sel + pack * kPack, s);
  LoadPack(win + pack * kPack, w);
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    sum[i] = gate_cmp * c[i] + gate_sel * s[i] + gate_win * w[i];
  }
  StorePack(sum, out + pack * kPack);
}

}  // namespace

void CombineBranches(const CombineArgs& args, const Stream& stream) {
  const int64_t num_elements = args.out.num_elements(), d_v = args.out.dim(2);
  if (num_elements == 0) return;
  DispatchDevice(args.out.dtype(), [&]<typename T>() {
    const auto launch = [&]<int kPack>() {
      const int64_t num_packs = num_elements / kPack;
      CombineKernel<T, kPack><<<static_cast<unsigned>(CeilDiv(num_packs, kThreads)), kThreads, 0,
                                stream.cuda->stream()>>>(
          static_cast<const float*>(args.gate_logits.raw()),
          static_cast<const float*>(args.cmp.raw()), static_cast<const float*>(args.sel.raw()),
          static_cast<const float*>(args.win.raw()), static_cast<T*>(args.out.raw()), d_v,
          num_packs);
    };
    if (d_v % 4 == 0) {
      launch.template operator()<4>();
    } else {
      launch.template operator()<1>();
    }
  });
  CheckLaunch();
}

}  // namespace nsa::cuda
