#include "kernels/cuda/sm90/prefill_branches.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "base/check.h"
#include "kernels/cuda/sm90/prefill_plan.h"

namespace nsa::cuda {
namespace {

constexpr int64_t kAlignment = 256;

// What scratch holds, and how much of each.
struct ScratchExtent {
  int64_t num_keys = 0;      // (KV head, sequence, block)
  int64_t num_partials = 0;  // (token of a chunk, KV head, slot)
  int64_t d_v = 0;

  int64_t max_items() const { return num_partials / kItemPairs + std::min(num_keys, num_partials); }
};

// Points the chunk into memory; without memory it only counts. Returns the bytes needed.
int64_t CutScratch(const ScratchExtent& extent, void* memory, PrefillChunk& chunk) {
  int64_t num_bytes = 0;
  const auto take = [&]<typename T>(T*& pointer, int64_t bytes) {
    if (memory != nullptr) {
      pointer = reinterpret_cast<T*>(static_cast<std::byte*>(memory) + num_bytes);
    }
    num_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  };
  const int64_t partials = extent.num_partials;
  std::byte* partial_out = nullptr;
  take(partial_out, partials * kPrefillGroup * extent.d_v * 2);
  chunk.partial_out = partial_out;
  take(chunk.partial_lse, partials * kPrefillGroup * int64_t{sizeof(float)});
  take(chunk.cursors, sizeof(PrefillCursors));
  take(chunk.counts, extent.num_keys * int64_t{sizeof(int32_t)});
  take(chunk.offsets, extent.num_keys * int64_t{sizeof(int32_t)});
  take(chunk.ranks, partials * int64_t{sizeof(int32_t)});
  take(chunk.pairs, partials * int64_t{sizeof(PrefillPair)});
  take(chunk.items, extent.max_items() * int64_t{sizeof(PrefillItem)});
  return num_bytes;
}

int64_t NumSlots(const NsaShape& shape) {
  return shape.num_selected - shape.num_initial - shape.num_local;
}

int64_t NumTiles(const PrefillBranchesArgs& args) {
  return args.tokens.tiles.empty() ? 0 : args.tokens.tiles.dim(0);
}

}  // namespace

bool CanRunPrefillBranches(const PrefillBranchesArgs& args) {
  const DType dtype = args.q.dtype();
  const int64_t d_k = args.q.dim(2), d_v = args.out.dim(2);
  const int64_t num_kv_heads = args.sel.num_kv_heads();
  const bool same_type = (dtype == DType::kBF16 || dtype == DType::kF16) &&
                         args.sel.k.dtype() == dtype && args.win.k.dtype() == dtype &&
                         args.cmp.dtype() == dtype && args.out.dtype() == dtype;
  const bool dims =
      (d_k == 64 && d_v == 64) || (d_k == 128 && d_v == 128) || (d_k == 192 && d_v == 128);
  const bool pages = args.sel.page_rows() == kPrefillBlock &&
                     args.shape.block_tokens == kPrefillBlock &&
                     args.win.page_rows() % kPrefillBlock == 0;
  const bool selection =
      args.shape.num_local >= 1 && args.shape.num_selected <= kMaxPrefillSelected;
  const auto fits_int = [](int64_t x) { return x <= std::numeric_limits<int32_t>::max(); };
  const bool small = fits_int(args.sel.k.dim(0) * num_kv_heads * kPrefillBlock) &&
                     fits_int(args.win.k.dim(0) * num_kv_heads * args.win.page_rows()) &&
                     fits_int(num_kv_heads * args.sel.table.dim(0) * args.sel.table.dim(1));
  return same_type && dims && pages && selection && small &&
         args.q.dim(1) == num_kv_heads * kPrefillGroup;
}

int64_t PrefillBranchesScratchBytes(const SparseAttentionExtent& extent,
                                    const PrefillTuning& tuning) {
  // A sequence's tokens fill tiles but for its first and last.
  const int64_t max_tiles =
      std::min(extent.num_tokens, extent.num_tokens / kPrefillBlock + 2 * extent.num_seqs);
  const int64_t chunk_tiles = std::min(tuning.chunk_tiles, max_tiles);
  PrefillChunk chunk;
  return CutScratch(
      {.num_keys = extent.num_kv_heads * extent.num_seqs * extent.max_pages,
       .num_partials = chunk_tiles * kPrefillBlock * extent.num_kv_heads * NumSlots(extent.shape),
       .d_v = extent.d_v},
      nullptr, chunk);
}

int64_t PrefillChunkTiles(const PrefillBranchesArgs& args) {
  return std::min(args.tuning.chunk_tiles, NumTiles(args));
}

PrefillChunk MakePrefillChunk(const PrefillBranchesArgs& args, int64_t first_tile) {
  const int64_t chunk_tiles = PrefillChunkTiles(args);
  PrefillChunk chunk;
  chunk.tiles = args.tokens.tiles.data<int32_t>() + first_tile * 4;
  chunk.blocks = args.blocks.data<int32_t>();
  chunk.table = args.sel.table.data<int32_t>();
  chunk.num_tiles = static_cast<int32_t>(std::min(chunk_tiles, NumTiles(args) - first_tile));
  chunk.num_seqs = static_cast<int32_t>(args.sel.table.dim(0));
  chunk.table_width = static_cast<int32_t>(args.sel.table.dim(1));
  chunk.num_kv_heads = static_cast<int32_t>(args.sel.num_kv_heads());
  chunk.num_selected = static_cast<int32_t>(args.shape.num_selected);
  chunk.num_initial = static_cast<int32_t>(args.shape.num_initial);
  chunk.num_local = static_cast<int32_t>(args.shape.num_local);
  chunk.num_slots = static_cast<int32_t>(NumSlots(args.shape));
  chunk.num_inline_blocks = args.tuning.inline_blocks;
  const ScratchExtent extent{
      .num_keys = chunk.num_keys(),
      .num_partials = chunk_tiles * kPrefillBlock * chunk.num_kv_heads * chunk.num_slots,
      .d_v = args.out.dim(2)};
  NSA_CHECK_LE(CutScratch(extent, args.scratch.raw(), chunk), args.scratch.num_bytes());
  return chunk;
}

void LaunchPrefillBranches(const PrefillBranchesArgs& args, int num_sms, cudaStream_t stream) {
  NSA_CHECK(CanRunPrefillBranches(args))
      << args.q.ToString() << ", cache " << args.sel.k.ToString();
  NSA_CHECK_LE(args.tuning.inline_blocks, 64);
  const int64_t chunk_tiles = PrefillChunkTiles(args);
  for (int64_t first = 0; first < NumTiles(args); first += chunk_tiles) {
    const PrefillChunk chunk = MakePrefillChunk(args, first);
    if (chunk.num_slots > 0) {
      LaunchPrefillPlan(chunk, stream);
      LaunchPrefillSelected(args, chunk, num_sms, stream);
    }
    LaunchPrefillMerge(args, chunk, num_sms, stream);
  }
}

}  // namespace nsa::cuda
