// The prefill kernels of Hopper behind plain C functions, for prefill_bench.py and
// prefill_energy.py. Every call but nsa_open and nsa_close only enqueues work.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "bench/kernels/gpu/sparse_call.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/sm90/prefill_branches.h"
#include "kernels/cuda/sm90/prefill_choose.h"
#include "kernels/cuda/sm90/prefill_compressed.h"
#include "kernels/cuda/sm90/prefill_compressed_rows.h"
#include "kernels/cuda/sm90/prefill_plan.h"
#include "kernels/cuda/sm90/sparse_prefill.h"

namespace nsa {
namespace {

enum Stage : int64_t { kGather, kCompressed, kChoose, kPlan, kSelected, kMerge };

// Where the stages keep what they hand to each other, in the call's scratch.
struct StageScratch {
  static constexpr int64_t kAlignment = 1024;

  int64_t block_sums, branches, branches_bytes, num_bytes;

  explicit StageScratch(const SparseAttentionExtent& extent) {
    const auto aligned = [](int64_t bytes) {
      return (bytes + kAlignment - 1) / kAlignment * kAlignment;
    };
    block_sums = aligned(cuda::PrefillRowsBytes(extent));
    branches = block_sums + aligned(cuda::PrefillBlockSumsBytes(extent));
    branches_bytes = cuda::PrefillBranchesScratchBytes(extent);
    num_bytes = branches + branches_bytes;
  }
};

CompressedAttentionArgs CompressedArgs(const PrefillCall& call, const SparseAttentionArgs& args) {
  const SparseCall& c = call.sparse;
  return {.shape = args.shape,
          .tokens = args.tokens,
          .q = args.q,
          .rows = args.rows,
          .out = {call.cmp, args.q.dtype(), {c.num_tokens, c.num_heads, c.d_v}},
          .lse = {call.cmp_lse, DType::kF32, {c.num_tokens, c.num_heads}},
          .softmax_scale = args.softmax_scale};
}

SelectArgs SelectArgsOf(const CompressedAttentionArgs& cmp, const SparseAttentionArgs& args) {
  return {.shape = args.shape,
          .tokens = args.tokens,
          .q = args.q,
          .rows = args.rows,
          .lse = cmp.lse,
          .blocks = args.blocks,
          .scratch = {},
          .softmax_scale = args.softmax_scale};
}

cuda::PrefillBranchesArgs BranchesArgs(const CompressedAttentionArgs& cmp,
                                       const SparseAttentionArgs& args,
                                       const StageScratch& scratch) {
  return {.shape = args.shape,
          .tokens = args.tokens,
          .q = args.q,
          .gate_logits = args.gate_logits,
          .cmp = cmp.out,
          .blocks = args.blocks,
          .sel = args.sel,
          .win = args.win,
          .out = args.out,
          .scratch = {static_cast<std::byte*>(args.scratch.raw()) + scratch.branches,
                      DType::kU8,
                      {scratch.branches_bytes}},
          .softmax_scale = args.softmax_scale};
}

void LaunchChoiceStage(Stage stage, CompressedAttentionArgs cmp, SelectArgs select,
                       const cuda::PrefillRows& rows, const cuda::PrefillBlockSums& block_sums,
                       int num_sms, cudaStream_t stream) {
  cuda::ForEachChunk(cmp.tokens, block_sums, [&](const TokenMap& tokens) {
    cmp.tokens = select.tokens = tokens;
    cuda::LaunchPrefillCompressed(cmp, rows, block_sums, num_sms, stream);
    if (stage == kChoose) cuda::LaunchPrefillChoose(select, rows, block_sums, stream);
  });
}

void LaunchBranchStage(Stage stage, const cuda::PrefillBranchesArgs& args, int num_sms,
                       cudaStream_t stream) {
  const cuda::PrefillSteps steps = cuda::MakePrefillSteps(args);
  if (stage == kPlan) cuda::LaunchPrefillPlan(steps, stream);
  for (int64_t i = 0; i < steps.num_chunks; ++i) {
    if (stage == kSelected) cuda::LaunchPrefillSelected(args, steps.At(i), num_sms, stream);
    if (stage == kMerge) cuda::LaunchPrefillMerge(args, steps.At(i), num_sms, stream);
  }
}

}  // namespace

extern "C" {

// What the chain needs of a stream; to be closed.
void* nsa_open(int64_t device, void* stream) {
  return new cuda::Context(static_cast<int>(device), static_cast<cudaStream_t>(stream));
}
void nsa_close(void* context) { delete static_cast<cuda::Context*>(context); }

// Of a call's scratch: for the chain and for stages.
int64_t nsa_prefill_scratch_bytes(const PrefillCall* call) {
  const SparseAttentionExtent extent = ExtentOf(ArgsOf(*call));
  return std::max(cuda::SparsePrefillScratchBytes(extent), StageScratch(extent).num_bytes);
}

// The whole chain.
void nsa_prefill(void* context, const PrefillCall* call) {
  const SparseAttentionArgs args = ArgsOf(*call);
  NSA_CHECK(cuda::CanRunSparsePrefill(args)) << args.q.ToString();
  cuda::LaunchSparsePrefill(args, Stream{.cuda = static_cast<cuda::Context*>(context)});
}

// One stage by itself; the stages before it have run on this call. Choose follows compressed chunk
// by chunk, whose block sums they share, so it is compressed and choose. Selected and merge share
// one chunk's partials, so that the output of stages is right for one chunk only.
void nsa_prefill_stage(void* context, const PrefillCall* call, int64_t stage) {
  const auto& cuda_context = *static_cast<cuda::Context*>(context);
  const cudaStream_t stream = cuda_context.stream();
  const int num_sms = cuda_context.num_sms();
  const SparseAttentionArgs args = ArgsOf(*call);
  const StageScratch scratch(ExtentOf(args));
  NSA_CHECK_LE(scratch.num_bytes, args.scratch.num_bytes());
  auto* memory = static_cast<std::byte*>(args.scratch.raw());
  const CompressedAttentionArgs cmp = CompressedArgs(*call, args);
  const cuda::PrefillRows rows = cuda::PlacePrefillRows(args.rows, memory);
  if (stage == kGather) {
    cuda::LaunchGatherPrefillRows(args.shape, args.tokens, args.rows, rows, stream);
  } else if (stage == kCompressed || stage == kChoose) {
    LaunchChoiceStage(static_cast<Stage>(stage), cmp, SelectArgsOf(cmp, args), rows,
                      cuda::PlacePrefillBlockSums(ExtentOf(args), memory + scratch.block_sums),
                      num_sms, stream);
  } else {
    LaunchBranchStage(static_cast<Stage>(stage), BranchesArgs(cmp, args, scratch), num_sms, stream);
  }
}

}  // extern "C"

}  // namespace nsa
