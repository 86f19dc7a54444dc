#include "kernels/cuda/sm90/sparse_prefill.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/sm90/prefill_branches.h"
#include "kernels/cuda/sm90/prefill_choose.h"
#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_compressed_rows.h"

namespace nsa::cuda {
namespace {

constexpr int64_t kAlignment = 1024;  // the strictest of the kernels'

// The parts of the scratch. Without memory it only counts.
struct Scratch {
  TensorView cmp;      // [T, H, d_v] activation
  TensorView cmp_lse;  // [T, H] f32
  void* rows = nullptr;
  PrefillBlockSums block_sums;
  TensorView branches;  // u8
  int64_t num_bytes = 0;
};

Scratch TakeScratch(const SparseAttentionExtent& extent, void* memory) {
  Scratch scratch;
  const auto take = [&](int64_t num_bytes) -> void* {
    void* part = memory == nullptr ? nullptr : static_cast<std::byte*>(memory) + scratch.num_bytes;
    scratch.num_bytes += (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  };
  const int64_t num_rows = extent.num_tokens * extent.num_heads;
  scratch.cmp = {take(num_rows * extent.d_v * DTypeBytes(extent.activation)),
                 extent.activation,
                 {extent.num_tokens, extent.num_heads, extent.d_v}};
  scratch.cmp_lse = {
      take(num_rows * DTypeBytes(DType::kF32)), DType::kF32, {extent.num_tokens, extent.num_heads}};
  // What the compressed branch leaves behind is of no use once blocks are chosen; the other
  // branches begin then.
  const int64_t shared = scratch.num_bytes;
  scratch.rows = take(PrefillRowsBytes(extent));
  scratch.block_sums = PlacePrefillBlockSums(extent, take(PrefillBlockSumsBytes(extent)));
  const int64_t compressed_end = std::exchange(scratch.num_bytes, shared);
  const int64_t branches_bytes = PrefillBranchesScratchBytes(extent);
  scratch.branches = {take(branches_bytes), DType::kU8, {branches_bytes}};
  scratch.num_bytes = std::max(scratch.num_bytes, compressed_end);
  return scratch;
}

CompressedAttentionArgs CompressedArgs(const SparseAttentionArgs& args, const Scratch& scratch) {
  return {.shape = args.shape,
          .tokens = args.tokens,
          .q = args.q,
          .rows = args.rows,
          .out = scratch.cmp,
          .lse = scratch.cmp_lse,
          .softmax_scale = args.softmax_scale};
}

SelectArgs SelectArgsOf(const SparseAttentionArgs& args, const Scratch& scratch) {
  return {.shape = args.shape,
          .tokens = args.tokens,
          .q = args.q,
          .rows = args.rows,
          .lse = scratch.cmp_lse,
          .blocks = args.blocks,
          .scratch = {},
          .softmax_scale = args.softmax_scale};
}

PrefillBranchesArgs BranchesArgs(const SparseAttentionArgs& args, const Scratch& scratch) {
  return {.shape = args.shape,
          .tokens = args.tokens,
          .q = args.q,
          .gate_logits = args.gate_logits,
          .cmp = scratch.cmp,
          .blocks = args.blocks,
          .sel = args.sel,
          .win = args.win,
          .out = args.out,
          .scratch = scratch.branches,
          .softmax_scale = args.softmax_scale};
}

}  // namespace

bool CanRunSparsePrefill(const SparseAttentionArgs& args) {
  Scratch shapes;  // what the kernels look at
  shapes.cmp = {nullptr, args.q.dtype(), {args.q.dim(0), args.q.dim(1), args.sel.d_v()}};
  shapes.cmp_lse = {nullptr, DType::kF32, {args.q.dim(0), args.q.dim(1)}};
  return CanPrefillCompressed(CompressedArgs(args, shapes)) &&
         CanPrefillChoose(SelectArgsOf(args, shapes)) &&
         CanRunPrefillBranches(BranchesArgs(args, shapes));
}

int64_t SparsePrefillScratchBytes(const SparseAttentionExtent& extent) {
  return TakeScratch(extent, nullptr).num_bytes;
}

void LaunchSparsePrefill(const SparseAttentionArgs& args, const Stream& stream) {
  const Scratch scratch = TakeScratch(ExtentOf(args), args.scratch.raw());
  NSA_CHECK_LE(scratch.num_bytes, args.scratch.num_bytes());
  const cudaStream_t cuda_stream = stream.cuda->stream();
  const int num_sms = stream.cuda->num_sms();
  const PrefillRows rows = PlacePrefillRows(args.rows, scratch.rows);
  LaunchGatherPrefillRows(args.shape, args.tokens, args.rows, rows, cuda_stream);
  CompressedAttentionArgs compressed = CompressedArgs(args, scratch);
  SelectArgs select = SelectArgsOf(args, scratch);
  ForEachChunk(args.tokens, scratch.block_sums, [&](const TokenMap& tokens) {
    compressed.tokens = select.tokens = tokens;
    LaunchPrefillCompressed(compressed, rows, scratch.block_sums, num_sms, cuda_stream);
    LaunchPrefillChoose(select, rows, scratch.block_sums, cuda_stream);
  });
  LaunchPrefillBranches(BranchesArgs(args, scratch), num_sms, cuda_stream);
}

}  // namespace nsa::cuda
