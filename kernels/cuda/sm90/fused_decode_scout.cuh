#pragma once
// The scouts of the fused decode kernel: half of a block's warps, which bring tiles into shared
// memory, choose the blocks and sum the results.

#include <cstdint>

#include "kernels/cuda/ptx/prefetch.cuh"
#include "kernels/cuda/sm90/fused_decode_stages.cuh"
#include "kernels/cuda/sm90/fused_decode_worker.cuh"

namespace nsa::cuda::fused_decode {

inline constexpr int kFewTiles = 16;  // of compressed rows, of a block

// What of the caches a token sees.
struct Reach {
  int end_row;   // of the paged compressed rows
  int new_tile;  // the tile whose last row this step has written, -1 = none
  int window_begin, num_win_tiles, num_sel_tiles;
  const int32_t* pages;      // of the sequence
  const int32_t* win_pages;  // of its window

  template <typename I>
  __device__ __forceinline__ Reach(const Worker<I>& worker, int sequence)
      : window_begin(max(0, worker.position + 1 - worker.p.window_tokens)),
        num_win_tiles((worker.position - window_begin) / kTileRows + 1),
        num_sel_tiles((worker.num_chosen() * worker.p.block_tokens + kTileRows - 1) / kTileRows),
        pages(worker.p.rows.table +
              static_cast<int64_t>(sequence) * worker.p.rows.table_width.divisor()),
        win_pages(worker.p.win.table +
                  static_cast<int64_t>(sequence) * worker.p.win.table_width.divisor()) {
    const int past_span = worker.position + 1 - worker.p.span_tokens;
    const int last_row = past_span < 0 ? -1 : past_span / worker.p.span_stride;
    end_row = last_row + 1 + I::kRowOffset;
    new_tile = past_span >= 0 && last_row * worker.p.span_stride == past_span
                   ? (end_row - 1) / kTileRows
                   : -1;
  }
};

// The ring of tiles in shared memory, as one side sees it.
struct Ring {
  int stage = 0;
  uint32_t parity;
  __device__ __forceinline__ void Advance(int num_stages) {
    stage = stage == num_stages - 1 ? 0 : stage + 1;
    if (stage == 0) parity ^= 1;
  }
};

// The scouts: bring tiles of compressed rows and of the window, choose, bring the chosen blocks,
// and sum the results. Up to WaitForPrecedingKernels() only what earlier steps have written is
// read.
template <typename I>
__device__ __forceinline__ void Scout(const Params& p, Worker<I>& worker, const Reach& reach,
                                      uint32_t tiles, int64_t first_head) {
  using T = typename I::T;
  auto& shared = worker.shared;
  const int tid = threadIdx.x & (kThreads - 1), lane = tid & 31, warp = tid >> 5;
  const int rank = worker.rank, num_ranks = worker.num_ranks, num_chosen = worker.num_chosen();
#pragma unroll 4
  for (int i = tid; i < worker.NumLocal(worker.num_cmp_tiles) * I::kTileBlocks; i += kThreads) {
    const int tile = i / I::kTileBlocks * num_ranks + rank;
    const int block = tile * I::kTileBlocks + i % I::kTileBlocks;
    worker.pages[i] = block < worker.num_blocks ? reach.pages[block] : -1;
  }
#pragma unroll 1
  for (int i = tid * 8; i < worker.num_blocks; i += kThreads * 8) {  // for the chosen blocks
    PrefetchGlobal(reach.pages + i);
  }
  SyncScouts();

  Ring ring{.parity = 1};  // a fresh barrier lets pass
  const uint64_t policy = ReadOncePolicy();
  const int row_of_lane = warp * kWarpRows + (lane & 15);
  const auto index_in = [&](int page, int page_rows, int row) {
    return page < 0 ? -1 : (page * p.num_kv_heads + worker.kv_head) * page_rows + row;
  };
  // Brings up to `limit` more tiles of a walk; row_index says which row of the cache a row is.
  const auto bring = [&](const PagedRows& kv, TileWalk& walk, int limit, const auto& row_index) {
#pragma unroll 1
    for (; !walk.done() && limit > 0; walk.Next(), --limit) {
      const int index = row_index(walk.tile * kTileRows + row_of_lane);
      Wait(SharedAddress(&shared.empty[ring.stage]), ring.parity);
      LoadTile<I::kDk, I::kDv>(kv, index, tiles + ring.stage * Layout<I>::kTile,
                               SharedAddress(&shared.full[ring.stage]), warp, lane, policy);
      ring.Advance(p.num_stages);
    }
  };
  const auto cmp_row = [&](int row) {
    if (row < I::kRowOffset || row >= reach.end_row) return -1;
    const int local = (row / kTileRows) >> worker.rank_bits;
    return index_in(worker.pages[local * I::kTileBlocks + row % kTileRows / I::kPageRows],
                    I::kPageRows, row % I::kPageRows);
  };
  TileWalk cmp(rank, num_ranks, worker.num_cmp_tiles);
  int num_old = 0;  // tiles to bring before the wait
#pragma unroll 1
  for (TileWalk old = cmp; num_old < p.num_stages && !old.done() && old.tile != reach.new_tile;
       old.Next()) {
    ++num_old;
  }
  TileWalk win(rank, num_ranks, reach.num_win_tiles);
  const auto win_row = [&](int row) {
    const int token = reach.window_begin + row;
    if (token > worker.position) return -1;
    const int slot = p.win.page_rows.Quotient(token), page_rows = p.win.page_rows.divisor();
    return index_in(reach.win_pages[p.win.table_width.Remainder(slot)], page_rows,
                    token - slot * page_rows);
  };
  float gate_logit = 0;
#pragma unroll 1
  for (int part = 0; part < 2; ++part) {
    bring(p.rows, cmp, part == 0 ? num_old : INT32_MAX, cmp_row);
    if (part == 1) break;
    WaitForPrecedingKernels();
    AllowFollowingKernel();
    Stamp(Stage::kStarted);
    if (tid < p.group_size * 3) gate_logit = p.gates[first_head * 3 + tid];
  }
  // Then reads of sums should not wait for the forced blocks.
  const bool weighs_much = worker.NumLocal(worker.num_cmp_tiles) > kFewTiles;
#pragma unroll 1
  for (int part = 0; part < 2; ++part) {
    // As many as there is room for; the others when the choice is made.
    bring(p.win, win, part == 0 ? p.num_stages : INT32_MAX, win_row);
    if (part == 1) break;
    Wait(SharedAddress(&shared.attended), 0);
    if (!weighs_much) worker.PrefetchForced(reach.pages);
    if (worker.ranks_blocks()) {
      worker.SendImportances([&] {  // the next tile of the window as soon as there is room
        if (win.done()) return;
        const bool room = TestWait(SharedAddress(&shared.empty[ring.stage]), ring.parity);
        if (__all_sync(kFullMask, room)) bring(p.win, win, 1, win_row);
      });
      Stamp(Stage::kWeighed);
      if (weighs_much) worker.PrefetchForced(reach.pages);
      worker.DiscardSums();
      Wait(SharedAddress(&shared.importances_here), 0);
      Stamp(Stage::kImportancesExchanged);
    } else {
      Wait(SharedAddress(&shared.sums_here), 0);
    }
    worker.Choose(reach.pages);
    Stamp(Stage::kChosen);
  }
  Wait(SharedAddress(&shared.chosen_here), 0);
  TileWalk sel(rank, num_ranks, reach.num_sel_tiles);
  bring(p.sel, sel, INT32_MAX, [&](int row) {
    const int slot = p.sel.page_rows.Quotient(row), in_block = row - slot * p.block_tokens;
    if (slot >= num_chosen) return -1;
    const int block = shared.choice.sorted[slot];
    if (block * p.block_tokens + in_block > worker.position) return -1;
    return index_in(shared.choice.pages[slot], p.block_tokens, in_block);
  });
  if (tid < p.group_size * 3) {  // cmp, sel, win
    const int head = tid / 3, gate = tid % 3;
    shared.factor[gate == 0 ? kCmp : gate == 1 ? kSel : kWin][head] = 1 / (1 + __expf(-gate_logit));
  }
  SyncScouts();
#pragma unroll 1
  for (int phase = kCmp; phase < kNumPhases; ++phase) {
    Wait(SharedAddress(&shared.results_here[phase]), 0);
    if (phase == kNumPhases - 1) Stamp(Stage::kResultsExchanged);
    worker.Weights(phase);
    SyncScouts();
    worker.Sum(phase, static_cast<T*>(p.out) + first_head * I::kDv);
  }
  Stamp(Stage::kSummed);
}

}  // namespace nsa::cuda::fused_decode
