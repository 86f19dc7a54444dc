// The CUDA kernels behind plain C functions, for benchmarks that call them from PyTorch's process
// (decode_bench.py). Every call only enqueues work on `stream`.

#include <cuda_runtime.h>

#include <cstdint>

#include "bench/kernels/gpu/sparse_call.h"
#include "kernels/cuda/sm90/fused_decode.h"

namespace nsa {
extern "C" {

void nsa_fused_decode(const SparseCall* call, void* stream) {
  SparseAttentionArgs args = ArgsOf(*call);
  args.tokens.num_decode_tokens = call->num_tokens;
  cuda::LaunchFusedDecode(args, static_cast<cudaStream_t>(stream));
}

#ifdef NSA_DECODE_STAGES
int64_t nsa_fused_decode_stages(void* stamps) { return cuda::CopyFusedDecodeStages(stamps); }
#endif

}  // extern "C"

}  // namespace nsa
