// A cluster of c thread blocks serves one (token, KV head): its group of query heads is the M = 16
// side of the tensor-core products, tiles of 64 cached rows are the other side. In the order of the
// phases below:
//
//   1. Each block attends its tiles of compressed rows. Besides the output it keeps, per block of
//      the selection and head, the sum of probabilities relative to the tile's maximum.
//   2. The blocks exchange maximum and sum of every head: now each knows the lse, the sums become
//      importances, and its best candidates go to all peers.
//   3. While those travel, the window is attended; its rows have been on their way since phase 1.
//   4. Every block ranks the candidates of all: the choice is known, without leaving the cluster.
//   5. The chosen blocks are attended.
//   6. Each block sums the results of its share of the heads.
//
// Tile i of a phase belongs to leaf i % 16 of a fixed tree (fused_decode_tile.cuh); a block
// computes the leaves that are its rank modulo c and the subtree over them. So c changes where work
// happens and not one bit of the result: the launcher may choose it by the batch.

#include <mutex>

#include "base/check.h"
#include "kernels/cuda/instances.h"
#include "kernels/cuda/sm90/fused_decode.h"
#include "kernels/cuda/sm90/fused_decode_worker.cuh"

namespace nsa::cuda {
namespace {

using namespace fused_decode;  // NOLINT(google-build-using-namespace)

constexpr float kLog2E = 1.44269504088896340736F;
constexpr int kMaxSharedBytes = 227 * 1024;

template <typename I>
__global__ __launch_bounds__(kThreads, 2) void FusedDecodeKernel(const __grid_constant__ Params p) {
  using T = typename I::T;
  extern __shared__ __align__(128) uint8_t memory[];
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, token = blockIdx.z;

  WaitForPrecedingKernels();
  const int position = p.position[token], sequence = p.sequence[token];
  Worker<I> worker(p, memory, Layout<I>(p.max_tiles, ClusterSize()), position);
  auto& shared = worker.shared;
  const int rank = worker.rank, num_ranks = worker.num_ranks, kv_head = worker.kv_head;
  const int num_heads = p.num_kv_heads * p.group_size;
  const int64_t first_head = static_cast<int64_t>(token) * num_heads + kv_head * p.group_size;
  T* const out = static_cast<T*>(p.out) + first_head * I::kDv;
  int32_t* const blocks_out =
      p.blocks + (static_cast<int64_t>(token) * p.num_kv_heads + kv_head) * p.num_selected;
  if (position < 0) {  // padding; the same for the whole cluster
    for (int i = rank * kThreads + tid; i < p.group_size * I::kDv; i += num_ranks * kThreads) {
      out[i] = T(0.0F);
    }
    if (rank == 0 && tid < p.num_selected) blocks_out[tid] = -1;
    return;
  }
  const int32_t* const rows_table =
      p.rows.table + static_cast<int64_t>(sequence) * p.rows.table_width.divisor();
  {
#pragma unroll 4
    for (int i = tid; i < p.max_tiles * I::kTileBlocks; i += kThreads) {
      const int tile = i / I::kTileBlocks * num_ranks + rank;
      const int block = tile * I::kTileBlocks + i % I::kTileBlocks;
      if (block < worker.num_blocks) worker.pages[i] = rows_table[block];
    }
  }
  if (tid < p.group_size * 3) {  // gate logits: cmp, sel, win
    const int head = tid / 3, gate = tid % 3;
    const float logit = p.gates[first_head * 3 + tid];
    shared.factor[gate == 0 ? kCmp : gate == 1 ? kSel : kWin][head] = 1 / (1 + __expf(-logit));
  }
  for (int i = tid; i < num_ranks * kMaxCandidates; i += kThreads) worker.candidates[i] = 0;
  if (tid == 0) {
    shared.num_survivors = shared.num_finalists = 0, shared.threshold = 0;
    for (uint64_t& barrier : shared.full) InitBarrier(SharedAddress(&barrier), kThreads);
    FenceBarrierInit();
  }
  __syncthreads();
  ClusterArrive();  // (a) this block runs and its candidates are clear

  uint32_t q[I::kDk / 16][4];  // A operand: heads by dims
  {
    const T* const q_heads = static_cast<const T*>(p.q) + first_head * I::kDk;
#pragma unroll
    for (int i = 0; i < I::kDk / 4; ++i) {
      const int step = i / 4, head = (lane >> 2) + (i & 1) * 8;
      const int dim = step * 16 + ((i >> 1) & 1) * 8 + (lane & 3) * 2;
      q[step][i & 3] = head < p.group_size
                           ? *reinterpret_cast<const uint32_t*>(q_heads + head * I::kDk + dim)
                           : 0;
    }
  }

  // The pipeline of tiles: the compressed rows', then the window's; later the chosen blocks'.
  const int end_row =
      (position + 1 < p.span_tokens ? 0 : (position + 1 - p.span_tokens) / p.span_stride + 1) +
      I::kRowOffset;  // paged rows: model row + row offset
  const int window_begin = max(0, position + 1 - p.window_tokens);
  const int num_win_tiles = (position - window_begin) / kTileRows + 1;
  const int32_t* const win_table =
      p.win.table + static_cast<int64_t>(sequence) * p.win.table_width.divisor();
  const int block_tokens = p.block_tokens, num_chosen = worker.num_chosen();

  TileWalk loads(rank, num_ranks, worker.num_cmp_tiles);
  int load_phase = kCmp, load_stage = 0, stage = 0;
  uint32_t parity = 0;
  const auto advance = [](int& ring) { ring = ring == I::kStages - 1 ? 0 : ring + 1; };
  // Row `row` of a phase's tiles: which row of which page of which cache; -1 = none.
  const auto row_index = [&](int row) {
    int page, page_rows, in_page;
    if (load_phase == kCmp) {
      if (row < I::kRowOffset || row >= end_row) return -1;
      const int local = (row / kTileRows) >> worker.rank_bits;
      page = worker.pages[local * I::kTileBlocks + row % kTileRows / I::kPageRows];
      page_rows = I::kPageRows, in_page = row % I::kPageRows;
    } else if (load_phase == kWin) {
      const int token_row = window_begin + row;
      if (token_row > position) return -1;
      const int slot = p.win.page_rows.Quotient(token_row);
      page = win_table[p.win.table_width.Remainder(slot)];
      page_rows = p.win.page_rows.divisor(), in_page = token_row - slot * page_rows;
    } else {
      const int slot = p.sel.page_rows.Quotient(row);
      page_rows = block_tokens, in_page = row - slot * page_rows;
      if (slot >= num_chosen || shared.sorted[slot] * page_rows + in_page > position) return -1;
      page = rows_table[shared.sorted[slot]];
    }
    return page < 0 ? -1 : (page * p.num_kv_heads + kv_head) * page_rows + in_page;
  };
  // The index of this lane's row of the next tile, looked up one tile ahead.
  int32_t next_index = -1;
  const auto look_up_next = [&] {
    if (load_phase == kCmp && loads.done()) {
      load_phase = kWin;
      loads = TileWalk(rank, num_ranks, num_win_tiles);
    }
    if (loads.done()) return;
    next_index = row_index(loads.tile * kTileRows + warp * kWarpRows + (lane & 15));
  };
  const auto load_next = [&] {
    if (loads.done()) return;
    const PagedRows& kv = load_phase == kCmp ? p.rows : load_phase == kWin ? p.win : p.sel;
    LoadTile<I::kDk, I::kDv>(kv, next_index, SharedAddress(memory) + load_stage * Layout<I>::kTile,
                             SharedAddress(&shared.full[load_stage]), warp, lane);
    loads.Next();
    advance(load_stage);
    look_up_next();
  };

#pragma unroll 1
  for (int phase = kCmp; phase < kNumPhases; ++phase) {
    int num_tiles = worker.num_cmp_tiles, end = end_row;
    if (phase == kWin) {
      ClusterArrive();  // (b) results of the compressed branch, sums of all tiles
      ClusterWait();
      if (worker.chooses() && worker.num_wanted() > 0) worker.RankBlocks();
      num_tiles = num_win_tiles, end = position + 1 - window_begin;
    } else if (phase == kSel) {
      ClusterArrive();  // (c) candidates
      ClusterWait();
      worker.Choose();
      num_tiles = (num_chosen * block_tokens + kTileRows - 1) / kTileRows;
      // All tokens of the chosen blocks but the last ones of the query's own.
      end = num_chosen * block_tokens;
      if (shared.sorted[num_chosen - 1] == worker.num_blocks - 1) {
        end -= worker.num_blocks * block_tokens - 1 - position;
      }
    }
    if (phase != kWin) {
      if (phase == kSel) load_phase = kSel, loads = TileWalk(rank, num_ranks, num_tiles);
      look_up_next();
#pragma unroll 1
      for (int i = 0; i < I::kStages; ++i) load_next();
      if (phase == kSel && rank == 0 && tid < p.num_selected) {
        blocks_out[tid] = tid < num_chosen ? shared.sorted[tid] : -1;
      }
    }
    LowerNodes<I::kDv> lower;
    UpperNodes<I::kDv> upper;
    Partial<I::kDv> leaf;
    TileWalk walk(rank, num_ranks, num_tiles);
#pragma unroll 1
    for (int visit = 0; visit < walk.num_leaves; ++visit) {
      leaf.Clear();
#pragma unroll 1
      for (; walk.visit == visit; walk.Next()) {
        const int first = walk.tile * kTileRows, begin = phase == kCmp ? I::kRowOffset - first : 0;
        Wait(SharedAddress(&shared.full[stage]), parity);
        AttendTile<T, I::kDk, I::kDv>(q, SharedAddress(memory) + stage * Layout<I>::kTile, begin,
                                      end - first, p.scale_log2, shared.tile, leaf);
        load_next();
        if (phase == kCmp) {
          TileSums<I>& sums = worker.sums[walk.tile];
          worker.SumBlocks(sums);
          if (warp == 0 && (lane & 3) == 0) {
            sums.max[lane >> 2] = leaf.max[0];
            sums.max[(lane >> 2) + 8] = leaf.max[1];
          }
        }
        advance(stage);
        if (stage == 0) parity ^= 1;
      }
      AddLeaf(visit, leaf, lower, upper);
    }
    if (phase == kCmp) ClusterWait();  // (a)
    worker.Publish(phase, leaf);
    worker.Send(phase, leaf);
  }
  AllowFollowingKernel();
  ClusterArrive();  // (d) all results
  ClusterWait();
  worker.Sum(out);
}

PagedRows Rows(const PagedKv& kv) {
  return {.k = kv.k.raw(),
          .v = kv.v.raw(),
          .table = kv.table.data<int32_t>(),
          .table_width = FastDivide(static_cast<int32_t>(kv.table.dim(1))),
          .page_rows = FastDivide(static_cast<int32_t>(kv.page_rows()))};
}

Params MakeParams(const SparseAttentionArgs& args) {
  const NsaShape& shape = args.shape;
  const auto i32 = [](int64_t value) { return static_cast<int32_t>(value); };
  return {.q = args.q.raw(),
          .gates = args.gate_logits.data<float>(),
          .out = args.out.raw(),
          .blocks = args.blocks.data<int32_t>(),
          .sequence = args.tokens.sequence.data<int32_t>(),
          .position = args.tokens.position.data<int32_t>(),
          .rows = Rows(args.rows),
          .sel = Rows(args.sel),
          .win = Rows(args.win),
          .num_kv_heads = i32(args.rows.num_kv_heads()),
          .group_size = i32(args.q.dim(1) / args.rows.num_kv_heads()),
          .span_tokens = i32(shape.span_tokens),
          .span_stride = i32(shape.span_stride),
          .block_tokens = i32(shape.block_tokens),
          .num_selected = i32(shape.num_selected),
          .num_initial = i32(shape.num_initial),
          .num_local = i32(shape.num_local),
          .window_tokens = i32(shape.window_tokens),
          .num_tiles = 0,
          .max_tiles = 0,
          .tile_sums = args.scratch.raw(),
          .scale_log2 = args.softmax_scale * kLog2E};
}

void CheckCuda(cudaError_t error) {
  NSA_CHECK(error == cudaSuccess) << "fused decode: " << cudaGetErrorString(error);
}

// One instance of the kernel, and how many of its clusters run at once.
template <typename I>
class Launcher {
 public:
  static bool Fits(const Params& params) { return NumBytes(params, kLeaves) <= kMaxSharedBytes; }

  static void Launch(Params params, int64_t num_tokens, cudaStream_t stream) {
    static Launcher launcher;
    const int num_ranks = launcher.ChooseClusterSize(params, num_tokens * params.num_kv_heads);
    params.num_tiles = NumTiles(params.rows.table_width.divisor());
    params.max_tiles = MaxTiles(params, num_ranks);
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t config = Config(num_ranks, NumBytes(params, num_ranks), attributes);
    config.gridDim = dim3(num_ranks, params.num_kv_heads, static_cast<unsigned>(num_tokens));
    config.stream = stream;
    CheckCuda(cudaLaunchKernelEx(&config, kKernel, params));
  }

 private:
  static constexpr auto kKernel = FusedDecodeKernel<I>;
  static int NumTiles(int64_t table_width) {
    return static_cast<int>((table_width * I::kPageRows + kTileRows - 1) / kTileRows);
  }
  static int MaxTiles(const Params& params, int num_ranks) {
    return (NumTiles(params.rows.table_width.divisor()) + num_ranks - 1) / num_ranks;
  }
  static int NumBytes(const Params& params, int num_ranks) {
    return Layout<I>(MaxTiles(params, num_ranks), num_ranks).num_bytes;
  }

  // Time of a cluster besides its tiles, in units of the time one block takes for all its tiles if
  // it is alone with a token: about 8 of 90 us at 64k tokens.
  static constexpr double kFixedCost = 0.09;

  Launcher() {
    CheckCuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    CheckCuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   kMaxSharedBytes));
  }

  static cudaLaunchConfig_t Config(int num_ranks, int num_bytes, cudaLaunchAttribute* attributes) {
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {static_cast<unsigned>(num_ranks), 1, 1};
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = num_bytes;
    config.attrs = attributes;
    config.numAttrs = 2;
    return config;
  }

  // Clusters run in waves: fewer blocks per cluster mean fewer waves, more of them shorter ones.
  int ChooseClusterSize(const Params& params, int64_t num_clusters) {
    const int table_width = params.rows.table_width.divisor();
    const std::lock_guard lock(mutex_);
    if (table_width != table_width_) {
      table_width_ = table_width;
      for (int i = 0; i < kNumSizes; ++i) num_resident_[i] = NumResident(params, 1 << i);
    }
    int best = kLeaves;
    double best_cost = 0;
    for (int i = kNumSizes - 1; i >= 0; --i) {
      if (num_resident_[i] == 0) continue;
      const int64_t waves = (num_clusters + num_resident_[i] - 1) / num_resident_[i];
      const double cost = static_cast<double>(waves) * (kFixedCost + 1.0 / (1 << i));
      if (best_cost == 0 || cost < best_cost) best = 1 << i, best_cost = cost;
    }
    return best;
  }

  // Clusters of this size that run at once; 0 if their shared memory is too large.
  static int NumResident(const Params& params, int num_ranks) {
    const int num_bytes = NumBytes(params, num_ranks);
    if (num_bytes > kMaxSharedBytes) return 0;
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t config = Config(num_ranks, num_bytes, attributes);
    config.gridDim = dim3(num_ranks, 1, 1);
    int count = 0;
    CheckCuda(cudaOccupancyMaxActiveClusters(&count, kKernel, &config));
    return count;
  }

  static constexpr int kNumSizes = 5;  // 1, 2, 4, 8, 16 blocks
  std::mutex mutex_;
  int table_width_ = -1;
  int num_resident_[kNumSizes] = {};
};

// Calls use(fits, launch) of the operands' instance; false if there is none.
template <typename T, int kDk, int kDv, typename Use>
bool WithShape(const NsaShape& shape, const Use& use) {
  const auto with = [&]<typename I>() { return use(Launcher<I>::Fits, Launcher<I>::Launch); };
  const int64_t page_rows = shape.rows_per_page(), row_offset = shape.row_offset();
  if (page_rows == 4 && row_offset == 1) {
    return with.template operator()<Instance<T, kDk, kDv, 4, 1>>();
  }
  if (page_rows == 1 && row_offset == 0) {
    return with.template operator()<Instance<T, kDk, kDv, 1, 0>>();
  }
  return false;
}

template <typename Use>
bool WithInstance(const SparseAttentionArgs& args, const Use& use) {
  bool result = false;
  DispatchInstance(
      args.q.dtype(), args.rows.d_k(), args.rows.d_v(),
      [&]<typename T, int kDk, int kDv>() { result = WithShape<T, kDk, kDv>(args.shape, use); });
  return result;
}

}  // namespace

bool CanFuseDecode(const SparseAttentionArgs& args) {
  const NsaShape& shape = args.shape;
  for (const PagedKv* kv : {&args.rows, &args.sel, &args.win}) {
    const int64_t num_indices = kv->k.dim(0) * kv->k.dim(1) * kv->k.dim(2);
    if (kv->k.dtype() != args.q.dtype() || num_indices > INT32_MAX) return false;
  }
  return args.rows.table.raw() == args.sel.table.raw() &&
         args.q.dim(1) / args.rows.num_kv_heads() <= kHeads &&
         shape.num_selected <= kMaxFusedSelected &&
         shape.num_selected - shape.num_initial - shape.num_local <= kMaxCandidates &&
         WithInstance(args, [&](auto fits, auto /*launch*/) { return fits(MakeParams(args)); });
}

int64_t FusedDecodeScratchBytes(const NsaShape& shape, int64_t num_tokens, int64_t num_kv_heads,
                                int64_t max_pages) {
  const int64_t num_tiles = (max_pages * shape.rows_per_page() + kTileRows - 1) / kTileRows;
  const int64_t tile_blocks = kTileRows / shape.rows_per_page();
  return num_tokens * num_kv_heads * num_tiles * (tile_blocks + 2) * kHeads * 4;
}

void LaunchFusedDecode(const SparseAttentionArgs& args, cudaStream_t stream) {
  NSA_CHECK(CanFuseDecode(args)) << args.q.ToString() << " over " << args.rows.k.ToString();
  const int64_t num_tokens = args.tokens.num_tokens();
  if (num_tokens == 0) return;
  NSA_CHECK_GE(args.scratch.num_bytes(),
               FusedDecodeScratchBytes(args.shape, num_tokens, args.rows.num_kv_heads(),
                                       args.rows.table.dim(1)));
  WithInstance(args, [&](auto /*fits*/, auto launch) {
    launch(MakeParams(args), num_tokens, stream);
    return true;
  });
}

}  // namespace nsa::cuda
