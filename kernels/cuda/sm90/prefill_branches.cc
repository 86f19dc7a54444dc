#include "kernels/cuda/sm90/prefill_branches.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "base/check.h"
#include "kernels/cuda/instances.h"
#include "kernels/cuda/sm90/prefill_plan.h"

namespace nsa::cuda {
namespace {

constexpr int64_t kAlignment = 256;

// Points the chunk, whose counts are set, into memory for num_chunks plans; without memory it only
// counts. Returns the bytes needed.
int64_t CutScratch(int64_t num_chunks, int64_t d_v, void* memory, PrefillChunk& chunk) {
  int64_t num_bytes = 0;
  const auto take = [&]<typename T>(T*& pointer, int64_t bytes) {
    if (memory != nullptr) {
      pointer = reinterpret_cast<T*>(static_cast<std::byte*>(memory) + num_bytes);
    }
    num_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  };
  const int64_t partials = chunk.num_partials();
  std::byte* partial_out = nullptr;
  take(partial_out, partials * kPrefillGroup * d_v * 2);
  chunk.partial_out = partial_out;
  take(chunk.partial_lse, partials * kPrefillGroup * int64_t{sizeof(float)});
  take(chunk.cursors, num_chunks * chunk.num_kv_heads * int64_t{sizeof(PrefillCursors)});
  take(chunk.counts, num_chunks * chunk.num_keys() * int64_t{sizeof(int32_t)});
  take(chunk.offsets, num_chunks * chunk.num_keys() * int64_t{sizeof(int32_t)});
  take(chunk.ranks, num_chunks * partials * int64_t{sizeof(int32_t)});
  take(chunk.pairs, num_chunks * partials * int64_t{sizeof(PrefillPair)});
  take(chunk.items, num_chunks * chunk.max_items() * int64_t{sizeof(PrefillItem)});
  return num_bytes;
}

// Sets what the size of the plan follows from. Returns the number of chunks.
int64_t SetCounts(const NsaShape& shape, int64_t num_seqs, int64_t table_width,
                  int64_t num_kv_heads, int64_t num_tiles, const PrefillTuning& tuning,
                  PrefillChunk& chunk) {
  chunk.max_tiles = static_cast<int32_t>(std::min(tuning.chunk_tiles, num_tiles));
  chunk.num_seqs = static_cast<int32_t>(num_seqs);
  chunk.table_width = static_cast<int32_t>(table_width);
  chunk.num_kv_heads = static_cast<int32_t>(num_kv_heads);
  chunk.num_selected = static_cast<int32_t>(shape.num_selected);
  chunk.num_initial = static_cast<int32_t>(shape.num_initial);
  chunk.num_local = static_cast<int32_t>(shape.num_local);
  chunk.num_slots = chunk.num_selected - chunk.num_initial - chunk.num_local;
  chunk.num_inline_blocks = tuning.inline_blocks;
  return chunk.max_tiles == 0 ? 0 : (num_tiles + chunk.max_tiles - 1) / chunk.max_tiles;
}

}  // namespace

bool CanRunPrefillBranches(const PrefillBranchesArgs& args) {
  const DType dtype = args.q.dtype();
  const int64_t num_kv_heads = args.sel.num_kv_heads();
  const bool same_type = args.sel.k.dtype() == dtype && args.win.k.dtype() == dtype &&
                         args.cmp.dtype() == dtype && args.out.dtype() == dtype;
  const bool pages = args.sel.page_rows() == kPrefillBlock &&
                     args.shape.block_tokens == kPrefillBlock &&
                     args.win.page_rows() % kPrefillBlock == 0;
  const bool selection =
      args.shape.num_local >= 1 && args.shape.num_selected <= kMaxPrefillSelected;
  const auto fits_int = [](int64_t x) { return x <= std::numeric_limits<int32_t>::max(); };
  const bool small = fits_int(args.sel.k.dim(0) * num_kv_heads * kPrefillBlock) &&
                     fits_int(args.win.k.dim(0) * num_kv_heads * args.win.page_rows()) &&
                     fits_int(num_kv_heads * args.sel.table.dim(0) * args.sel.table.dim(1));
  return HasInstance(dtype, args.q.dim(2), args.out.dim(2)) && same_type && pages && selection &&
         small && args.q.dim(1) == num_kv_heads * kPrefillGroup;
}

int64_t PrefillBranchesScratchBytes(const SparseAttentionExtent& extent,
                                    const PrefillTuning& tuning) {
  // A sequence's tokens fill tiles but for its first and last.
  const int64_t max_tiles =
      std::min(extent.num_tokens, extent.num_tokens / kPrefillBlock + 2 * extent.num_seqs);
  PrefillChunk chunk;
  const int64_t num_chunks = SetCounts(extent.shape, extent.num_seqs, extent.max_pages,
                                       extent.num_kv_heads, max_tiles, tuning, chunk);
  return CutScratch(num_chunks, extent.d_v, nullptr, chunk);
}

PrefillSteps MakePrefillSteps(const PrefillBranchesArgs& args) {
  PrefillSteps steps;
  if (args.tokens.tiles.empty() || args.tokens.tiles.dim(0) == 0) return steps;
  steps.num_tiles = args.tokens.tiles.dim(0);
  PrefillChunk& chunk = steps.first;
  chunk.tiles = args.tokens.tiles.data<int32_t>();
  chunk.blocks = args.blocks.data<int32_t>();
  chunk.table = args.sel.table.data<int32_t>();
  steps.num_chunks = SetCounts(args.shape, args.sel.table.dim(0), args.sel.table.dim(1),
                               args.sel.num_kv_heads(), steps.num_tiles, args.tuning, chunk);
  NSA_CHECK_LE(CutScratch(steps.num_chunks, args.out.dim(2), args.scratch.raw(), chunk),
               args.scratch.num_bytes());
  return steps;
}

void LaunchPrefillBranches(const PrefillBranchesArgs& args, int num_sms, cudaStream_t stream) {
  NSA_CHECK(CanRunPrefillBranches(args))
      << args.q.ToString() << ", cache " << args.sel.k.ToString();
  NSA_CHECK_LE(args.tuning.inline_blocks, 64);
  const PrefillSteps steps = MakePrefillSteps(args);
  if (steps.num_chunks == 0) return;
  const bool has_slots = steps.first.num_slots > 0;
  if (has_slots) LaunchPrefillPlan(steps, stream);
  for (int64_t i = 0; i < steps.num_chunks; ++i) {
    const PrefillChunk chunk = steps.At(i);
    if (has_slots) LaunchPrefillSelected(args, chunk, num_sms, stream);
    LaunchPrefillMerge(args, chunk, num_sms, stream);
  }
}

}  // namespace nsa::cuda
