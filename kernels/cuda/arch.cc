#include "kernels/cuda/arch.h"

#include <algorithm>
#include <span>

#include "kernels/cuda/sm90/append_tokens.h"
#include "kernels/cuda/sm90/decode_linear.h"
#include "kernels/cuda/sm90/dense_attention.h"
#include "kernels/cuda/sm90/fused_decode.h"
#include "kernels/cuda/sm90/sparse_prefill.h"

namespace nsa::cuda {
namespace {

constexpr int kHopper = 90;

// First the fastest.
constexpr FastKernel<SparseAttentionArgs> kSparseDecode[] = {
    {"fused decode", kHopper, kHopper, CanFuseDecode,
     [](const SparseAttentionArgs& args, const Stream& stream) {
       LaunchFusedDecode(args, stream.cuda->stream());
     },
     [](const SparseAttentionExtent& extent) {
       // A sequence decodes one token.
       const int64_t num_tokens = std::min(extent.num_tokens, extent.num_seqs);
       return FusedDecodeScratchBytes(extent.shape, num_tokens, extent.num_kv_heads,
                                      extent.max_pages);
     }},
};
constexpr FastKernel<SparseAttentionArgs> kSparsePrefill[] = {
    {"prefill chain", kHopper, kHopper, CanRunSparsePrefill, LaunchSparsePrefill,
     SparsePrefillScratchBytes},
};
constexpr FastKernel<DenseAttentionArgs> kDenseDecode[] = {
    {"split decode", kHopper, kHopper, CanRunDenseDecode,
     [](const DenseAttentionArgs& args, const Stream& stream) {
       LaunchDenseDecode(args, args.tokens.num_tokens(), stream.cuda->stream());
     }},
};
constexpr FastKernel<DenseAttentionArgs> kDensePrefill[] = {
    {"dense prefill", kHopper, kHopper, CanRunDensePrefill,
     [](const DenseAttentionArgs& args, const Stream& stream) {
       LaunchDensePrefill(args, stream.cuda->num_sms(), stream.cuda->stream());
     }},
};
constexpr FastKernel<AppendArgs> kAppend[] = {
    {"decode append", kHopper, kHopper, CanAppendTokens, LaunchAppendTokens},
};
constexpr FastKernel<LinearArgs> kLinear[] = {
    {"decode linear", kHopper, kHopper, CanRunDecodeLinear, LaunchDecodeLinear},
};

template <typename Args>
bool HasKernel(const FastKernel<Args>& kernel, const Context& context) {
  return context.compute_capability() >= kernel.min_capability &&
         context.compute_capability() <= kernel.max_capability;
}

template <typename Args>
const FastKernel<Args>* Find(std::span<const FastKernel<Args>> kernels, const Args& args,
                             const Context& context) {
  const auto found =
      std::find_if(kernels.begin(), kernels.end(), [&](const FastKernel<Args>& kernel) {
        return HasKernel(kernel, context) && kernel.can_run(args);
      });
  return found == kernels.end() ? nullptr : &*found;
}

}  // namespace

const FastKernel<SparseAttentionArgs>* FindDecodeKernel(const SparseAttentionArgs& args,
                                                        const Context& context) {
  return Find<SparseAttentionArgs>(kSparseDecode, args, context);
}

const FastKernel<SparseAttentionArgs>* FindPrefillKernel(const SparseAttentionArgs& args,
                                                         const Context& context) {
  return Find<SparseAttentionArgs>(kSparsePrefill, args, context);
}

const FastKernel<DenseAttentionArgs>* FindDecodeKernel(const DenseAttentionArgs& args,
                                                       const Context& context) {
  return Find<DenseAttentionArgs>(kDenseDecode, args, context);
}

const FastKernel<DenseAttentionArgs>* FindPrefillKernel(const DenseAttentionArgs& args,
                                                        const Context& context) {
  return Find<DenseAttentionArgs>(kDensePrefill, args, context);
}

const FastKernel<AppendArgs>* FindAppendKernel(const AppendArgs& args, const Context& context) {
  return Find<AppendArgs>(kAppend, args, context);
}

const FastKernel<LinearArgs>* FindLinearKernel(const LinearArgs& args, const Context& context) {
  return Find<LinearArgs>(kLinear, args, context);
}

int64_t FastScratchBytes(const SparseAttentionExtent& extent, const Context& context) {
  int64_t num_bytes = 0;
  const auto add = [&](std::span<const FastKernel<SparseAttentionArgs>> kernels) {
    for (const auto& kernel : kernels) {
      if (!HasKernel(kernel, context) || kernel.scratch_bytes == nullptr) continue;
      num_bytes = std::max(num_bytes, kernel.scratch_bytes(extent));
    }
  };
  add(kSparseDecode);
  add(kSparsePrefill);
  return num_bytes;
}

}  // namespace nsa::cuda
