// A cluster of c thread blocks serves one (token, KV head): its group of query heads is the M = 16
// side of the tensor-core products, tiles of 64 cached rows are the other side. Half of a block's
// warps attend tiles, the others, the scouts, bring the tiles and choose the blocks. In the order
// of the phases below:
//
//   1. Each block attends its tiles of compressed rows. Besides the output it keeps, per block of
//      the selection and head, the sum of probabilities relative to the tile's maximum: in shared
//      memory for as many tiles as there is room for, else in global memory, where large batches
//      discard what they have read before the L2 writes it back.
//   2. The blocks send maximum and sum of every head to each other: now each knows the lse, the
//      sums become importances, and these go to all peers.
//   3. Every block ranks the importances of all: the choice is known, without leaving the cluster.
//      Meanwhile the window is attended; its tiles have been on their way since phase 1.
//   4. The chosen blocks are attended.
//   5. Each block sums the results of its share of the heads.
//
// Blocks start while the kernels before still run (programmatic dependent launch). Of what earlier
// steps have written they read at once: the first tiles of compressed rows are there when the wait
// for those kernels ends.
//
// What blocks send each other are stores that count as bytes on a barrier of the receiver
// (ptx/store_async.cuh): nothing waits for a barrier of the whole cluster or a fence. A block that
// has the cluster to itself stores the ordinary way and arrives on the same barriers.
//
// Tile i of a phase belongs to leaf i % 16 of a fixed tree (fused_decode_tile.cuh); a block
// computes the leaves that are its rank modulo c and the subtree over them. So c changes where work
// happens and not one bit of the result: the launcher may choose it by the batch.

#include <algorithm>
#include <mutex>
#include <type_traits>

#include "base/check.h"
#include "kernels/cuda/instances.h"
#include "kernels/cuda/ptx/prefetch.cuh"
#include "kernels/cuda/sm90/fused_decode.h"
#include "kernels/cuda/sm90/fused_decode_scout.cuh"
#include "kernels/cuda/sm90/fused_decode_stages.cuh"
#include "kernels/cuda/sm90/fused_decode_worker.cuh"

namespace nsa::cuda {
namespace {

using namespace fused_decode;  // NOLINT(google-build-using-namespace)

constexpr float kLog2E = 1.44269504088896340736F;
constexpr int kMaxSharedBytes = 227 * 1024;   // of a block
constexpr int kHalfSharedBytes = 113 * 1024;  // of a block with another beside it
// Bytes of sums in global memory from which on an H200 gained by discarding them: its L2 of 50 MB
// had begun to write them back (bench/lab/README.md, seventh round of decode).
constexpr int64_t kManySums = 4 << 20;

// The other warps: attention over the tiles, phase by phase.
template <typename I>
__device__ __forceinline__ void AttendPhases(const Params& p, Worker<I>& worker, const Reach& reach,
                                             uint32_t tiles, int64_t first_head) {
  using T = typename I::T;
  auto& shared = worker.shared;
  const int lane = threadIdx.x & 31, rank = worker.rank, num_ranks = worker.num_ranks;
  WaitForPrecedingKernels();
  AllowFollowingKernel();
  uint32_t q[I::kDk / 16][4];  // A operand: heads by dims
  worker.LoadQueries(static_cast<const T*>(p.q) + first_head * I::kDk, q);
  Ring ring{.parity = 0};
  const bool ranks_blocks = worker.ranks_blocks();
#pragma unroll 1
  for (int phase = kCmp; phase < kNumPhases; ++phase) {
    int num_tiles, end;
    if (phase == kCmp) {
      num_tiles = worker.num_cmp_tiles, end = reach.end_row;
    } else if (phase == kWin) {
      num_tiles = reach.num_win_tiles, end = worker.position + 1 - reach.window_begin;
    } else {
      Wait(SharedAddress(&shared.chosen_here), 0);
      num_tiles = reach.num_sel_tiles;
      // All tokens of the chosen blocks but the last ones of the query's own.
      end = worker.num_chosen() * p.block_tokens;
      if (shared.choice.sorted[worker.num_chosen() - 1] == worker.num_blocks - 1) {
        end -= worker.num_blocks * p.block_tokens - 1 - worker.position;
      }
    }
    LowerNodes<I::kDv> lower;
    UpperNodes<I::kDv> upper;
    Partial<I::kDv> leaf;
    const TileWalk walk(rank, num_ranks, num_tiles);
#pragma unroll 1
    for (int visit = 0; visit < walk.num_leaves; ++visit) {
      leaf.Clear();
#pragma unroll 1
      for (int tile = walk.FirstTile(visit); tile < num_tiles; tile += kLeaves) {
        const int first = tile * kTileRows;
        Wait(SharedAddress(&shared.full[ring.stage]), ring.parity);
        if (visit == 0 && tile == rank && phase != kWin) {
          Stamp(phase == kCmp ? Stage::kFirstTile : Stage::kFirstChosenTile);
        }
        const bool sums_blocks = phase == kCmp && ranks_blocks;
        float sums[2][2];
        AttendTile<T, I::kDk, I::kDv>(
            q, tiles + ring.stage * Layout<I>::kTile, phase == kCmp ? I::kRowOffset - first : 0,
            end - first, p.scale_log2, shared.tile, leaf,
            [&](const float(&probabilities)[2][4]) {
              if (sums_blocks) worker.ShareSums(tile, probabilities, leaf.max, sums);
            },
            [&] {
              if (sums_blocks) worker.CollectSums(sums);
            });
        __syncwarp();
        ArriveForWarp(lane, SharedAddress(&shared.empty[ring.stage]));
        if (sums_blocks) worker.StoreSums(tile, sums);
        ring.Advance(p.num_stages);
      }
      AddLeaf(visit, leaf, lower, upper);
    }
    if (phase == kCmp) Arrive(SharedAddress(&shared.attended));
    worker.Publish(phase, leaf);
    worker.Send(phase, leaf);
    Stamp(phase == kCmp ? Stage::kCompressed : phase == kWin ? Stage::kWindow : Stage::kSelected);
  }
}

template <typename I>
__global__ __launch_bounds__(kAllThreads, I::kDk > 128 ? 1 : 2) void FusedDecodeKernel(
    const __grid_constant__ Params p) {
  using T = typename I::T;
  extern __shared__ __align__(128) uint8_t memory[];
  const int tid = threadIdx.x, token = blockIdx.z;
  Stamp(Stage::kEntered);
  auto& shared = *reinterpret_cast<Shared<T>*>(memory);
  if (tid == 0) {
    Worker<I>::InitBarriers(shared);
  }
  __syncthreads();
  ClusterArriveRelaxed();  // this block runs and its barriers are there
  // Written long before the kernels that may still run, like all that is read before the wait.
  const int position = p.position[token], sequence = p.sequence[token];
  const Layout<I> layout(p.max_tiles, ClusterSize(), p.num_stages);
  Worker<I> worker(p, memory, layout, position);
  const int num_heads = p.num_kv_heads * p.group_size;
  const int64_t first_head =
      static_cast<int64_t>(token) * num_heads + worker.kv_head * p.group_size;
  if (position < 0) {  // padding; the same for the whole cluster
    T* const out = static_cast<T*>(p.out) + first_head * I::kDv;
    int32_t* const blocks =
        p.blocks + (static_cast<int64_t>(token) * p.num_kv_heads + worker.kv_head) * p.num_selected;
    WaitForPrecedingKernels();
    AllowFollowingKernel();
    if (worker.rank == 0) {
      for (int i = tid; i < p.group_size * I::kDv; i += kAllThreads) out[i] = T(0.0F);
      if (tid < p.num_selected) blocks[tid] = -1;
    }
    ClusterWaitAligned();
    return;
  }
  const Reach reach(worker, sequence);
  if (tid == 0) worker.ExpectAll();
  ClusterWaitAligned();  // all blocks run
  Stamp(Stage::kPrepared);
  if (tid < kThreads) {
    if (I::kDk <= 128) GrowRegisters<152>();
    AttendPhases<I>(p, worker, reach, SharedAddress(memory + layout.tiles), first_head);
  } else {
    if (I::kDk <= 128) ShrinkRegisters<104>();
    Scout<I>(p, worker, reach, SharedAddress(memory + layout.tiles), first_head);
  }
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
          .num_stages = 0,
          .num_shared_tiles = 0,
          .discards_sums = false,
          .prefetches_likely = false,
          .tile_sums = reinterpret_cast<void*>(
              (reinterpret_cast<uintptr_t>(args.scratch.raw()) + kLineBytes - 1) / kLineBytes *
              kLineBytes),
          .scale_log2 = args.softmax_scale * kLog2E};
}

void CheckCuda(cudaError_t error) {
  NSA_CHECK(error == cudaSuccess) << "fused decode: " << cudaGetErrorString(error);
}

// One instance of the kernel, and the ways to launch it.
template <typename I>
class Launcher {
 public:
  static bool Fits(const Params& params) {
    return LayoutOf(params, kLeaves, I::kMinStages).NumSharedTiles(kMaxSharedBytes) >= 0;
  }

  static FusedDecodePlan Plan(const Params& params, int64_t num_tokens, int number) {
    const int64_t num_clusters = num_tokens * params.num_kv_heads;
    return PlanOf(params, num_clusters, Get().Find(params, num_clusters, number));
  }

  static void Launch(Params params, int64_t num_tokens, int number, cudaStream_t stream) {
    const int64_t num_clusters = num_tokens * params.num_kv_heads;
    const Way way = Get().Find(params, num_clusters, number);
    NSA_CHECK_GT(way.num_resident, 0) << "way " << number;
    const FusedDecodePlan plan = PlanOf(params, num_clusters, way);
    params.num_tiles = NumTiles(params.rows.table_width.divisor());
    params.max_tiles = plan.num_tiles;
    params.num_stages = way.num_stages;
    params.num_shared_tiles = plan.num_shared_tiles;
    params.prefetches_likely =
        std::min<int64_t>(num_clusters, way.num_resident) * way.num_ranks <= Get().num_processors_;
    params.discards_sums = plan.discards_sums;
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t config = Config(way.num_ranks, way.num_bytes, attributes);
    config.gridDim = dim3(way.num_ranks, params.num_kv_heads, static_cast<unsigned>(num_tokens));
    config.stream = stream;
    CheckCuda(cudaLaunchKernelEx(&config, kKernel, params));
  }

 private:
  static constexpr auto kKernel = FusedDecodeKernel<I>;

  // Blocks per cluster, tiles in shared memory and those whose sums are, its bytes, clusters that
  // run at once; none if it cannot be.
  struct Way {
    int num_ranks, num_stages, num_shared_tiles, num_bytes, num_resident;
  };

  static int NumTiles(int64_t table_width) {
    return static_cast<int>((table_width * I::kPageRows + kTileRows - 1) / kTileRows);
  }
  static int MaxTiles(const Params& params, int num_ranks) {
    return (NumTiles(params.rows.table_width.divisor()) + num_ranks - 1) / num_ranks;
  }
  static Layout<I> LayoutOf(const Params& params, int num_ranks, int num_stages) {
    return Layout<I>(MaxTiles(params, num_ranks), num_ranks, num_stages);
  }

  static Launcher& Get() {
    static Launcher launcher;
    return launcher;
  }
  static FusedDecodePlan PlanOf(const Params& params, int64_t num_clusters, const Way& way) {
    if (way.num_resident == 0) return {};
    return {.num_ranks = way.num_ranks,
            .num_tiles = MaxTiles(params, way.num_ranks),
            .num_shared_tiles = way.num_shared_tiles,
            .discards_sums = SumsBytes(params, way, num_clusters) >= kManySums};
  }

  Launcher() {
    CheckCuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    CheckCuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   kMaxSharedBytes));
    int device = 0;
    CheckCuda(cudaGetDevice(&device));
    CheckCuda(cudaDeviceGetAttribute(&num_processors_, cudaDevAttrMultiProcessorCount, device));
  }

  static cudaLaunchConfig_t Config(int num_ranks, int num_bytes, cudaLaunchAttribute* attributes) {
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {static_cast<unsigned>(num_ranks), 1, 1};
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.blockDim = dim3(kAllThreads);
    config.dynamicSmemBytes = num_bytes;
    config.attrs = attributes;
    config.numAttrs = 2;
    return config;
  }

  // Of the sums in global memory.
  static int64_t SumsBytes(const Params& params, const Way& way, int64_t num_clusters) {
    const int num_tiles = MaxTiles(params, way.num_ranks) - way.num_shared_tiles;
    return num_clusters * way.num_ranks * num_tiles * Layout<I>::kSums;
  }

  // The way with as many stages as `shared_bytes` have room for; the rest is for sums.
  static Way MakeWay(const Params& params, int num_ranks, int shared_bytes) {
    Way way{.num_ranks = num_ranks, .num_stages = kMaxStages, .num_resident = 0};
    const auto layout = [&] { return LayoutOf(params, num_ranks, way.num_stages); };
    while (layout().NumSharedTiles(shared_bytes) < 0) {
      if (--way.num_stages < I::kMinStages) return way;
    }
    way.num_shared_tiles =
        std::min(layout().NumSharedTiles(shared_bytes), MaxTiles(params, num_ranks));
    way.num_bytes = layout().NumBytes(way.num_shared_tiles);
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t config = Config(num_ranks, way.num_bytes, attributes);
    config.gridDim = dim3(num_ranks, 1, 1);
    CheckCuda(cudaOccupancyMaxActiveClusters(&way.num_resident, kKernel, &config));
    return way;
  }

  Way Find(const Params& params, int64_t num_clusters, int number) {
    NSA_CHECK(number >= kFastestWay && number < kNumFusedDecodeWays) << "way " << number;
    const std::lock_guard lock(mutex_);
    const int table_width = params.rows.table_width.divisor();
    if (table_width != table_width_) {
      table_width_ = table_width;
      for (int i = 0; i < kNumFusedDecodeWays; ++i) {
        ways_[i] = MakeWay(params, 1 << i / 2, i % 2 == 0 ? kMaxSharedBytes : kHalfSharedBytes);
      }
    }
    return number == kFastestWay ? Fastest(params, num_clusters) : ways_[number];
  }

  // Clusters run in waves, each as long as its blocks take for the cluster's bytes and a fixed
  // time; fitted to all ways at 8k to 256k tokens in batches of 1 to 64 on an H200. Times in us.
  // Under the lock, of ways_ as they are.
  Way Fastest(const Params& params, int64_t num_clusters) const {
    constexpr double kFixedTime = 4, kFixedTimePerRank = 0.12;
    constexpr double kNextWave = 1.3;   // of the fixed time: clusters of a wave do not end at once
    constexpr double kLateStart = 2.8;  // more, if blocks start only when those before have ended
    // Bytes per time of a block: with tiles enough on their way, with few, beside another block.
    constexpr double kAloneRate = 36e3, kFewStagesRate = 26.5e3, kBesideRate = 21e3;
    constexpr int kFewStages = 3;
    constexpr double kTimePerWrittenByte = 2.4e-6;  // of sums that leave the L2
    const double num_rows = static_cast<double>(table_width_) * I::kPageRows +
                            params.num_selected * params.block_tokens + params.window_tokens;
    const double cluster_bytes = num_rows * (I::kDk + I::kDv) * 2;
    Way best{};
    double best_time = 0;
    for (const Way& way : ways_) {
      if (way.num_resident == 0) continue;
      const int64_t waves = (num_clusters + way.num_resident - 1) / way.num_resident;
      const int64_t blocks = std::min<int64_t>(num_clusters, way.num_resident) * way.num_ranks;
      const double rate = blocks > num_processors_       ? kBesideRate
                          : way.num_stages <= kFewStages ? kFewStagesRate
                                                         : kAloneRate;
      const double fixed_time = kFixedTime + kFixedTimePerRank * way.num_ranks;
      const int64_t written = SumsBytes(params, way, num_clusters) - kManySums;
      const double time = fixed_time * (1 + kNextWave * static_cast<double>(waves - 1)) +
                          (2 * num_clusters > way.num_resident ? kLateStart : 0) +
                          static_cast<double>(waves) * cluster_bytes / (rate * way.num_ranks) +
                          kTimePerWrittenByte * static_cast<double>(std::max<int64_t>(written, 0));
      if (best.num_resident == 0 || time < best_time) best = way, best_time = time;
    }
    return best;
  }

  int num_processors_ = 0;
  std::mutex mutex_;
  int table_width_ = -1;
  Way ways_[kNumFusedDecodeWays] = {};
};

// Calls use(launcher) with a std::type_identity of the operands' Launcher; false if there is none.
template <typename T, int kDk, int kDv, typename Use>
bool WithShape(const NsaShape& shape, const Use& use) {
  const auto with = [&]<typename I>() { return use(std::type_identity<Launcher<I>>()); };
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
         shape.num_selected - shape.num_initial - shape.num_local <= kMaxFree &&
         WithInstance(args, [&]<typename L>(std::type_identity<L> /*launcher*/) {
           return L::Fits(MakeParams(args));
         });
}

int64_t FusedDecodeScratchBytes(const NsaShape& shape, int64_t num_tokens, int64_t num_kv_heads,
                                int64_t max_pages) {
  const int64_t num_tiles = (max_pages * shape.rows_per_page() + kTileRows - 1) / kTileRows;
  const int64_t tile_blocks = kTileRows / shape.rows_per_page();
  return kLineBytes + num_tokens * num_kv_heads * num_tiles * (tile_blocks + 2) * kHeads * 4;
}

#ifdef NSA_DECODE_STAGES
int64_t CopyFusedDecodeStages(void* stamps) {
  CheckCuda(cudaMemcpyFromSymbol(stamps, stage_stamps, sizeof(stage_stamps)));
  return static_cast<int64_t>(Stage::kNumStages);
}
#endif

FusedDecodePlan PlanFusedDecode(const SparseAttentionArgs& args, int way) {
  NSA_CHECK(CanFuseDecode(args)) << args.q.ToString() << " over " << args.rows.k.ToString();
  FusedDecodePlan plan{};
  WithInstance(args, [&]<typename L>(std::type_identity<L> /*launcher*/) {
    plan = L::Plan(MakeParams(args), args.tokens.num_tokens(), way);
    return true;
  });
  return plan;
}

void LaunchFusedDecode(const SparseAttentionArgs& args, cudaStream_t stream, int way) {
  NSA_CHECK(CanFuseDecode(args)) << args.q.ToString() << " over " << args.rows.k.ToString();
  const int64_t num_tokens = args.tokens.num_tokens();
  if (num_tokens == 0) return;
  NSA_CHECK_GE(args.scratch.num_bytes(),
               FusedDecodeScratchBytes(args.shape, num_tokens, args.rows.num_kv_heads(),
                                       args.rows.table.dim(1)));
  WithInstance(args, [&]<typename L>(std::type_identity<L> /*launcher*/) {
    L::Launch(MakeParams(args), num_tokens, way, stream);
    return true;
  });
}

}  // namespace nsa::cuda
