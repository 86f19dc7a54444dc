#pragma once
// The operations that every backend implements, as one table. kernels/*.cc checks an operation's
// contract and calls the backend of the stream's device; kernels/cpu, and kernels/cuda or
// kernels/no_cuda, define the functions declared here.

#include "kernels/device.h"
#include "kernels/kv_store.h"
#include "kernels/nsa.h"
#include "kernels/pending_tokens.h"
#include "kernels/sampling.h"
#include "kernels/transformer.h"

// OP(function, args struct)
#define NSA_BACKEND_OPS(OP)                        \
  OP(CompressRows, CompressArgs)                   \
  OP(AppendTokens, AppendArgs)                     \
  OP(CompressedAttention, CompressedAttentionArgs) \
  OP(SelectBlocks, SelectArgs)                     \
  OP(SelectedAttention, SelectedAttentionArgs)     \
  OP(WindowAttention, WindowAttentionArgs)         \
  OP(DenseAttention, DenseAttentionArgs)           \
  OP(CombineBranches, CombineArgs)                 \
  OP(SparseAttention, SparseAttentionArgs)         \
  OP(StoreProjections, StoreProjectionsArgs)       \
  OP(Linear, LinearArgs)                           \
  OP(EmbedTokens, EmbedArgs)                       \
  OP(AddRmsNorm, AddRmsNormArgs)                   \
  OP(SwiGlu, SwiGluArgs)                           \
  OP(GatherRows, GatherRowsArgs)                   \
  OP(SampleTokens, SampleArgs)                     \
  OP(TakePendingTokens, PendingTokensArgs)

#define NSA_DECLARE_OP(Function, Args) void Function(const Args& args, const Stream& stream);
namespace nsa::cpu {
NSA_BACKEND_OPS(NSA_DECLARE_OP)
int64_t CompressRowsScratchBytes(const CompressExtent& extent, const Stream& stream);
int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream);
}  // namespace nsa::cpu
namespace nsa::cuda {
NSA_BACKEND_OPS(NSA_DECLARE_OP)
int64_t CompressRowsScratchBytes(const CompressExtent& extent, const Stream& stream);
int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream);
}  // namespace nsa::cuda
#undef NSA_DECLARE_OP

// Inside namespace nsa: runs Function(args, stream) on the stream's device.
#define NSA_DISPATCH(Function, args, stream)                                    \
  ((stream).device == DeviceType::kCpu ? ::nsa::cpu::Function((args), (stream)) \
                                       : ::nsa::cuda::Function((args), (stream)))
