#include "base/check.h"
#include "kernels/cuda/sm90/prefill_plan.h"

namespace nsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kFullMask = 0xffffffffu;

// The pairs of one tile and KV head, as seen by one thread block: pair e is slot e % num_slots of
// token e / num_slots.
struct TilePairs {
  int sequence, first_token, num_tokens, num_slots;

  __device__ TilePairs(const PrefillChunk& chunk, int tile) {
    const int4 entry = reinterpret_cast<const int4*>(chunk.tiles)[tile];
    sequence = entry.x;
    first_token = entry.y;
    num_tokens = entry.z;
    num_slots = chunk.NumSlots(entry.w / kPrefillBlock);
  }
  __device__ int count() const { return num_tokens * num_slots; }
  __device__ int token(int e) const { return first_token + e / num_slots; }
  __device__ int Partial(const PrefillChunk& chunk, int tile, int head, int e) const {
    const int local_token = tile * kPrefillBlock + e / num_slots;
    return (local_token * chunk.num_kv_heads + head) * chunk.num_slots + e % num_slots;
  }
  __device__ int Key(const PrefillChunk& chunk, int head, int e) const {
    const int64_t list = (int64_t{token(e)} * chunk.num_kv_heads + head) * chunk.num_selected;
    const int block = chunk.blocks[list + chunk.num_initial + e % num_slots];
    return (head * chunk.num_seqs + sequence) * chunk.table_width + block;
  }
};

// Grid (tiles of a chunk, KV heads, chunks). Counts the pairs of each list; a pair's rank is how
// many came before it.
__global__ void __launch_bounds__(kThreads) CountPairs(PrefillChunk first, int num_tiles) {
  const PrefillChunk chunk = first.At(blockIdx.z, num_tiles);
  const int tile = blockIdx.x, head = blockIdx.y;
  if (tile >= chunk.num_tiles) return;
  const TilePairs pairs(chunk, tile);
  for (int e = threadIdx.x; e < pairs.count(); e += kThreads) {
    chunk.ranks[pairs.Partial(chunk, tile, head, e)] =
        atomicAdd(&chunk.counts[pairs.Key(chunk, head, e)], 1);
  }
}

__device__ int InclusiveWarpSum(int value) {
  const int lane = threadIdx.x % 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(kFullMask, value, distance);
    if (lane >= distance) value += other;
  }
  return value;
}

// Grid (keys of a head / kThreads, KV heads, chunks). A thread per list: gives it its place among
// the head's pairs and cuts it into items of nearly equal size, in whole tiles of 4 pairs.
__global__ void __launch_bounds__(kThreads) PlaceLists(PrefillChunk first, int num_tiles) {
  const PrefillChunk chunk = first.At(blockIdx.z, num_tiles);
  const int head_keys = static_cast<int>(chunk.head_keys()), head = blockIdx.y;
  const int key_of_head = blockIdx.x * kThreads + threadIdx.x;
  const int key = head * head_keys + key_of_head;
  const int count = key_of_head < head_keys ? chunk.counts[key] : 0;
  const int num_items = (count + kItemPairs - 1) / kItemPairs;
  const int pairs_end = InclusiveWarpSum(count), items_end = InclusiveWarpSum(num_items);
  unsigned long long base = 0;
  if (threadIdx.x % 32 == 31 && pairs_end > 0) {
    base = atomicAdd(&chunk.cursors[head].value,
                     static_cast<unsigned long long>(items_end) << 32 | unsigned(pairs_end));
  }
  base = __shfl_sync(kFullMask, base, 31);
  if (count == 0) return;

  int begin = static_cast<int>(head * chunk.head_partials()) +
              static_cast<int>(base & 0xffffffffu) + pairs_end - count;
  chunk.offsets[key] = begin;
  const int page = chunk.table[key_of_head];
  PrefillItem* items =
      chunk.items + head * chunk.head_items() + (base >> 32) + items_end - num_items;
  const int share = ((count + num_items - 1) / num_items + 3) / 4 * 4;
  for (int i = 0, left = count; i < num_items; ++i) {
    const int size = min(share, left);
    items[i] = {page * chunk.num_kv_heads + head, begin, size};
    begin += size;
    left -= size;
  }
}

// Grid (tiles of a chunk, KV heads, chunks). Puts every pair into its list.
__global__ void __launch_bounds__(kThreads) ListPairs(PrefillChunk first, int num_tiles) {
  const PrefillChunk chunk = first.At(blockIdx.z, num_tiles);
  const int tile = blockIdx.x, head = blockIdx.y;
  if (tile >= chunk.num_tiles) return;
  const TilePairs pairs(chunk, tile);
  for (int e = threadIdx.x; e < pairs.count(); e += kThreads) {
    const int partial = pairs.Partial(chunk, tile, head, e);
    const int place = chunk.offsets[pairs.Key(chunk, head, e)] + chunk.ranks[partial];
    chunk.pairs[place] = {pairs.token(e), partial};
  }
}

}  // namespace

void LaunchPrefillPlan(const PrefillSteps& steps, cudaStream_t stream) {
  const PrefillChunk& first = steps.first;
  const auto head_keys = static_cast<unsigned>(first.head_keys());
  const int num_tiles = static_cast<int>(steps.num_tiles);
  const unsigned num_chunks = static_cast<unsigned>(steps.num_chunks);
  // Cursors and counts lie together.
  const auto* end = reinterpret_cast<const char*>(first.counts + num_chunks * first.num_keys());
  const size_t num_bytes = end - reinterpret_cast<const char*>(first.cursors);
  NSA_CHECK(cudaMemsetAsync(first.cursors, 0, num_bytes, stream) == cudaSuccess);
  const dim3 grid(first.max_tiles, first.num_kv_heads, num_chunks);
  CountPairs<<<grid, kThreads, 0, stream>>>(first, num_tiles);
  PlaceLists<<<dim3((head_keys + kThreads - 1) / kThreads, first.num_kv_heads, num_chunks),
               kThreads, 0, stream>>>(first, num_tiles);
  ListPairs<<<grid, kThreads, 0, stream>>>(first, num_tiles);
  NSA_CHECK(cudaGetLastError() == cudaSuccess);
}

}  // namespace nsa::cuda
