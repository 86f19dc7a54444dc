// SparseAttention: decode tokens and tiles through the fast kernels where the GPU has some for the
// operands, everything else through the portable operations.

#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cuda/arch.h"
#include "kernels/sparse_branches.h"

namespace nsa::cuda {
namespace {

// Tokens whose branches the portable operations keep in fp32 at a time: bounds the scratch.
constexpr int64_t kPortableTokens = 1024;
constexpr int64_t kSelectBlocksPerSm = 2;

BranchScratch TakeScratch(SparseAttentionExtent extent, const Context& context,
                          ScratchCutter& cutter) {
  extent.num_tokens = std::min(extent.num_tokens, kPortableTokens);
  return TakeBranchScratch(extent, kSelectBlocksPerSm * context.num_sms(), cutter);
}

// The args of tokens [first, first + num) alone, none of which is in a tile.
SparseAttentionArgs SliceTokens(const SparseAttentionArgs& args, int64_t first, int64_t num) {
  SparseAttentionArgs slice = args;
  slice.tokens = {.sequence = args.tokens.sequence.Slice(first, num),
                  .position = args.tokens.position.Slice(first, num)};
  slice.q = args.q.Slice(first, num);
  slice.gate_logits = args.gate_logits.Slice(first, num);
  slice.out = args.out.Slice(first, num);
  slice.blocks = args.blocks.Slice(first, num);
  return slice;
}

// At most kPortableTokens tokens.
void RunPortableChunk(const SparseAttentionArgs& args, const Stream& stream) {
  const SparseAttentionExtent extent{
      .num_tokens = args.tokens.num_tokens(),
      .max_pages = std::max(args.rows.table.dim(1), args.sel.table.dim(1)),
      .num_heads = args.q.dim(1),
      .d_v = args.rows.d_v()};
  ScratchCutter cutter(args.scratch.raw());
  const BranchScratch scratch = TakeScratch(extent, *stream.cuda, cutter);
  NSA_CHECK_LE(cutter.num_bytes(), args.scratch.num_bytes());
  RunBranches(args, scratch, stream);
}

void RunPortable(const SparseAttentionArgs& args, const Stream& stream) {
  const int64_t num_tokens = args.tokens.num_tokens();
  for (int64_t first = 0; first < num_tokens; first += kPortableTokens) {
    RunPortableChunk(SliceTokens(args, first, std::min(kPortableTokens, num_tokens - first)),
                     stream);
  }
}

void RunDecode(const SparseAttentionArgs& args, const Stream& stream) {
  const auto* kernel = FindDecodeKernel(args, *stream.cuda);
  kernel == nullptr ? RunPortable(args, stream) : kernel->launch(args, stream);
}

void RunPrefill(const SparseAttentionArgs& args, const Stream& stream) {
  const bool has_tiles = !args.tokens.tiles.empty() && args.tokens.tiles.dim(0) > 0;
  const auto* kernel = has_tiles ? FindPrefillKernel(args, *stream.cuda) : nullptr;
  if (kernel != nullptr) return kernel->launch(args, stream);
  const int64_t first = args.tokens.num_decode_tokens;
  RunPortable(SliceTokens(args, first, args.tokens.num_tokens() - first), stream);
}

}  // namespace

int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream) {
  ScratchCutter cutter(nullptr);
  TakeScratch(extent, *stream.cuda, cutter);
  return std::max(cutter.num_bytes(), FastScratchBytes(extent, *stream.cuda));
}

void SparseAttention(const SparseAttentionArgs& args, const Stream& stream) {
  const int64_t num_decode = args.tokens.num_decode_tokens;
  NSA_CHECK(num_decode >= 0 && num_decode <= args.tokens.num_tokens()) << num_decode;
  if (num_decode > 0) RunDecode(SliceTokens(args, 0, num_decode), stream);
  if (num_decode < args.tokens.num_tokens()) RunPrefill(args, stream);
}

}  // namespace nsa::cuda
