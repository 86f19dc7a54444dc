// EditLogits: a block per edited row. Bytes: the row once each way; bound by memory, and with few
// rows by what one multiprocessor can move.

#include "kernels/backends.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 1024;

struct EditParams {
  const float* logits;      // [N, vocab]
  const int32_t* rows;      // [E]
  const int32_t* edit_end;  // [E]
  const LogitEdit* edits;   // [M]
  const int32_t* mask_of;   // [E]
  const int32_t* masks;     // [K, mask_words]
  float* out;               // [E, vocab]
  int64_t vocab, mask_words;
};

__global__ void __launch_bounds__(kThreads) EditLogitsKernel(EditParams params) {
  BeginDependentKernel();
  const int64_t e = blockIdx.x;
  const float* from = params.logits + params.rows[e] * params.vocab;
  float* out = params.out + e * params.vocab;
  const int32_t mask_index = params.mask_of[e];
  const int32_t* mask = mask_index < 0 ? nullptr : params.masks + mask_index * params.mask_words;
  for (int64_t v = threadIdx.x; v < params.vocab; v += kThreads) {
    const bool allowed =
        mask == nullptr || (static_cast<uint32_t>(mask[v / 32]) >> (v % 32) & 1) != 0;
    out[v] = allowed ? from[v] : -INFINITY;
  }
  __syncthreads();  // an edit reads what another thread may have copied
  const int32_t begin = e == 0 ? 0 : params.edit_end[e - 1];
  for (int32_t i = begin + static_cast<int32_t>(threadIdx.x); i < params.edit_end[e];
       i += kThreads) {
    const LogitEdit edit = params.edits[i];
    const float logit = out[edit.token];
    out[edit.token] = (logit > 0 ? logit / edit.factor : logit * edit.factor) + edit.shift;
  }
}

}  // namespace

void EditLogits(const EditLogitsArgs& args, const Stream& stream) {
  const auto ids = [](const TensorView& view) { return static_cast<const int32_t*>(view.raw()); };
  const EditParams params{.logits = static_cast<const float*>(args.logits.raw()),
                          .rows = ids(args.rows),
                          .edit_end = ids(args.edit_end),
                          .edits = static_cast<const LogitEdit*>(args.edits.raw()),
                          .mask_of = ids(args.mask_of),
                          .masks = ids(args.masks),
                          .out = static_cast<float*>(args.out.raw()),
                          .vocab = args.logits.dim(1),
                          .mask_words = args.masks.dim(1)};
  LaunchKernel(EditLogitsKernel, static_cast<unsigned>(args.rows.dim(0)), kThreads, 0, *stream.cuda,
               params);
}

}  // namespace nsa::cuda
