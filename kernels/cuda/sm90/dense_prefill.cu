// A persistent block takes every gridDim.x-th group of 8 neighbouring tokens of a tile and one KV
// head, the longest contexts first: 128 query rows. Two consumer warpgroups hold 4 tokens each;
// a producer thread loads Q and pages of K and V, two pages a step, from the diagonal downwards.
// The exponentials of a step run while the tensor cores multiply the step before by V.
//
// Bound by the tensor cores: 4 * d * H * T^2 / 2 operations. A token's bits depend on its own row
// alone: all masked columns have weight 0, and the order of pages is that of its own block.

#include "base/check.h"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/sm90/attend_page.cuh"
#include "kernels/cuda/sm90/dense_attention.h"
#include "kernels/cuda/sm90/prefill_kernel.cuh"

namespace nsa::cuda {
namespace {

constexpr int kConsumers = 2;
constexpr int kThreads = 128 * (1 + kConsumers);
constexpr int kHeads = 16;      // of a group
constexpr int kWarpTokens = 4;  // tokens of a consumer, one per warp
constexpr int kGroupTokens = kConsumers * kWarpTokens;
constexpr int kGroupsPerTile = kTileTokens / kGroupTokens;
constexpr int kStepPages = 2;
constexpr int kStepRows = kStepPages * kPageRows;
constexpr int kStepBoxBytes = kStepPages * kPageBoxBytes;
constexpr int kStages = 2;
constexpr int kProducerRegisters = 32;
constexpr int kConsumerRegisters = 232;
constexpr int kQueryBoxBytes = kGroupTokens * kHeads * kBoxColumns * 2;
constexpr float kLn2 = 0.69314718055994530942F;

template <int kDk, int kDv>
struct Shared {
  static constexpr int kQueryBytes = kDk / kBoxColumns * kQueryBoxBytes;
  static constexpr int kKeyBytes = kDk / kBoxColumns * kStepBoxBytes;
  static constexpr int kValueBytes = kDv / kBoxColumns * kStepBoxBytes;

  alignas(1024) uint8_t q[kQueryBytes];
  alignas(1024) uint8_t k[kStages][kKeyBytes];
  alignas(1024) uint8_t v[kStages][kValueBytes];
  uint64_t q_full, q_empty;
  uint64_t k_full[kStages], k_empty[kStages];
  uint64_t v_full[kStages], v_empty[kStages];
};

struct Maps {
  CUtensorMap q;     // [T, H, d_k] in boxes of 64 columns, 16 heads, 8 tokens
  CUtensorMap k, v;  // [pages * K * 64, d] in boxes of 64 columns, 64 rows
};

struct Params {
  const int32_t* tiles;  // [num_tiles, 4]
  const int32_t* table;  // [num_seqs, table_width]
  void* out;             // [T, H, d_v]
  float* lse;            // [T, H]
  int32_t num_tiles, num_kv_heads, table_width;
  float scale;  // softmax scale * log2(e)

  __device__ int num_groups() const { return num_tiles * num_kv_heads * kGroupsPerTile; }
};

// Tokens [first_token, + num_tokens) of a tile, at most 8, and a KV head.
struct Group {
  int sequence, head;
  int first_token, num_tokens, first_position;
  int own;       // the tile's own page
  int last_row;  // of the own page: rows above may never have been written

  // Tiles of a sequence ascend, so a reversed index has the longest contexts first.
  __device__ Group(const Params& params, int index) {
    const int reversed = params.num_groups() - 1 - index;
    const int offset = reversed % kGroupsPerTile * kGroupTokens;
    const int rest = reversed / kGroupsPerTile;
    head = rest % params.num_kv_heads;
    const int4 tile = reinterpret_cast<const int4*>(params.tiles)[rest / params.num_kv_heads];
    sequence = tile.x;
    first_token = tile.y + offset;
    num_tokens = min(kGroupTokens, tile.z - offset);
    first_position = tile.w + offset;
    own = tile.w / kPageRows;
    last_row = (tile.w + tile.z - 1) % kPageRows;
  }
  __device__ bool empty() const { return num_tokens <= 0; }
  __device__ int num_steps() const { return own / kStepPages + 1; }
  // Step 0 holds the own page. Page `half` of step 0 may lie past it: then the own page is loaded
  // twice, and masked.
  __device__ int Page(int step, int half) const {
    return min(own, (num_steps() - 1 - step) * kStepPages + half);
  }
};

template <int kDk, int kDv>
__device__ void Produce(Shared<kDk, kDv>& shared, const Maps& maps, const Params& params) {
  using Plan = Shared<kDk, kDv>;
  Ring<1> query;
  Ring<kStages> ring;
  for (int index = blockIdx.x; index < params.num_groups(); index += gridDim.x) {
    const Group group(params, index);
    if (group.empty()) continue;
    const uint32_t q_full = SharedAddress(&shared.q_full);
    Wait(SharedAddress(&shared.q_empty), query.parity ^ 1);
    ArriveExpectBytes(q_full, Plan::kQueryBytes);
    for (int box = 0; box < kDk / kBoxColumns; ++box) {
      LoadBox3(SharedAddress(shared.q) + box * kQueryBoxBytes, &maps.q, q_full, box * kBoxColumns,
               group.head * kHeads, group.first_token);
    }
    query.Advance();

    const int32_t* table = params.table + int64_t{group.sequence} * params.table_width;
    for (int step = 0; step < group.num_steps(); ++step, ring.Advance()) {
      const int stage = ring.stage;
      int row[kStepPages];
      for (int half = 0; half < kStepPages; ++half) {
        row[half] = (table[group.Page(step, half)] * params.num_kv_heads + group.head) * kPageRows;
      }
      const auto load = [&](const CUtensorMap& map, uint8_t* target, uint64_t& full,
                            uint64_t& empty, int num_boxes) {
        Wait(SharedAddress(&empty), ring.parity ^ 1);
        ArriveExpectBytes(SharedAddress(&full), num_boxes * kStepBoxBytes);
        for (int box = 0; box < num_boxes; ++box) {
          for (int half = 0; half < kStepPages; ++half) {
            LoadBox2(SharedAddress(target) + box * kStepBoxBytes + half * kPageBoxBytes, &map,
                     SharedAddress(&full), box * kBoxColumns, row[half]);
          }
        }
      };
      load(maps.k, shared.k[stage], shared.k_full[stage], shared.k_empty[stage], kDk / kBoxColumns);
      load(maps.v, shared.v[stage], shared.v_full[stage], shared.v_empty[stage], kDv / kBoxColumns);
    }
  }
}

template <typename T, int kDv>
__device__ __forceinline__ void Store(const Params& params, int token, int head,
                                      const float (&out)[kDv / 2], const OnlineRows& rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = QuadSum(rows.sum[half]);
    const int64_t row =
        (int64_t{token} * params.num_kv_heads + head) * kHeads + lane / 4 + half * 8;
    if (lane % 4 == 0) params.lse[row] = (rows.top[half] + __log2f(sum)) * kLn2;
    uint32_t* target = static_cast<uint32_t*>(params.out) + (row * kDv + lane % 4 * 2) / 2;
#pragma unroll
    for (int i = 0; i < kDv / 8; ++i) {
      target[i * 4] = PackPair<T>(out[4 * i + 2 * half] / sum, out[4 * i + 2 * half + 1] / sum);
    }
  }
}

template <typename T, int kDk, int kDv>
__device__ __forceinline__ void Consume(Shared<kDk, kDv>& shared, const Params& params) {
  const int self = threadIdx.x / 128 - 1;
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  const uint32_t q = SharedAddress(shared.q) + self * (kQueryBoxBytes / kConsumers);
  Ring<1> query;
  Ring<kStages> k_ring, v_ring;
  for (int index = blockIdx.x; index < params.num_groups(); index += gridDim.x) {
    const Group group(params, index);
    if (group.empty()) continue;
    const int token_of_group = self * kWarpTokens + warp;
    const int num_steps = group.num_steps();
    float scores[kStepRows / 2], out[kDv / 2], factor[2];
    uint32_t weights[kStepRows / 16][4];
    OnlineRows rows;
    const auto issue_scores = [&] {
      Wait(SharedAddress(&shared.k_full[k_ring.stage]), k_ring.parity);
      IssueScores<T, kDk, kQueryBoxBytes>(scores, q, SharedAddress(shared.k[k_ring.stage]));
    };
    const auto release_k = [&] {
      PinRegisters(scores);
      ArriveForWarp(lane, SharedAddress(&shared.k_empty[k_ring.stage]));
      k_ring.Advance();
    };

    // The step of the diagonal.
    Wait(SharedAddress(&shared.q_full), query.parity);
    issue_scores();
    WaitWgmma<0>();
    release_k();
    const int step_begin = (num_steps - 1) * kStepRows;
    MaskColumns(scores, 0, group.first_position + token_of_group + 1 - step_begin);
    OnlineSoftmaxStep(scores, params.scale, rows, factor);
    PackWeights<T>(scores, weights);
    Wait(SharedAddress(&shared.v_full[v_ring.stage]), v_ring.parity);
    const int written_rows = group.own * kPageRows + group.last_row + 1 - step_begin;
    if (written_rows < kStepRows) {
      ClearRowsFrom<kDv, kStepRows>(shared.v[v_ring.stage], written_rows, 1 + self);
    }

    for (int step = 1; step < num_steps; ++step) {
      issue_scores();
      Wait(SharedAddress(&shared.v_full[v_ring.stage]), v_ring.parity);
      IssueValues<T, kDv>(out, weights, SharedAddress(shared.v[v_ring.stage]), step > 1);
      WaitWgmma<1>();
      release_k();
      OnlineSoftmaxStep(scores, params.scale, rows, factor);
      WaitWgmma<0>();
      PinRegisters(out);
      ArriveForWarp(lane, SharedAddress(&shared.v_empty[v_ring.stage]));
      v_ring.Advance();
      RescaleRows(out, factor);
      PackWeights<T>(scores, weights);
    }
    ArriveForWarp(lane, SharedAddress(&shared.q_empty));
    query.Advance();

    Wait(SharedAddress(&shared.v_full[v_ring.stage]), v_ring.parity);
    IssueValues<T, kDv>(out, weights, SharedAddress(shared.v[v_ring.stage]), num_steps > 1);
    WaitWgmma<0>();
    PinRegisters(out);
    ArriveForWarp(lane, SharedAddress(&shared.v_empty[v_ring.stage]));
    v_ring.Advance();
    if (token_of_group < group.num_tokens) {
      Store<T, kDv>(params, group.first_token + token_of_group, group.head, out, rows);
    }
  }
}

// Grid: one block per multiprocessor.
template <typename T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    DensePrefill(const __grid_constant__ Maps maps, const __grid_constant__ Params params) {
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<kDk, kDv>*>(AlignShared(memory));
  if (threadIdx.x == 0) {
    const auto init = [](uint64_t& full, uint64_t& empty) {
      InitBarrier(SharedAddress(&full), 1);
      InitBarrier(SharedAddress(&empty), kConsumers * 4 * kWarpArrivals);
    };
    init(shared.q_full, shared.q_empty);
    for (int s = 0; s < kStages; ++s) {
      init(shared.k_full[s], shared.k_empty[s]);
      init(shared.v_full[s], shared.v_empty[s]);
    }
    FenceBarrierInit();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    ShrinkRegisters<kProducerRegisters>();
    if (threadIdx.x == 0) Produce(shared, maps, params);
  } else {
    GrowRegisters<kConsumerRegisters>();
    Consume<T>(shared, params);
  }
}

template <typename T, int kDk, int kDv>
void Launch(const DenseAttentionArgs& args, int num_sms, cudaStream_t stream) {
  const Maps maps{.q = MapQueries(args.q, kHeads, kGroupTokens),
                  .k = MapRows(args.kv.k),
                  .v = MapRows(args.kv.v)};
  const Params params{.tiles = args.tokens.tiles.data<int32_t>(),
                      .table = args.kv.table.data<int32_t>(),
                      .out = args.out.raw(),
                      .lse = args.lse.data<float>(),
                      .num_tiles = static_cast<int32_t>(args.tokens.tiles.dim(0)),
                      .num_kv_heads = static_cast<int32_t>(args.kv.num_kv_heads()),
                      .table_width = static_cast<int32_t>(args.kv.table.dim(1)),
                      .scale = args.softmax_scale * kLog2E};
  static_assert(sizeof(Shared<kDk, kDv>) + kSharedAlignment <= kMaxSharedBytes);
  LaunchPersistent(
      {.num_blocks = num_sms, .num_threads = kThreads, .shared_bytes = sizeof(Shared<kDk, kDv>)},
      stream, DensePrefill<T, kDk, kDv>, maps, params);
}

}  // namespace

bool CanRunDensePrefill(const DenseAttentionArgs& args) {
  const DType dtype = args.q.dtype();
  return HasInstance(dtype, args.kv.d_k(), args.kv.d_v()) && args.out.dtype() == dtype &&
         args.kv.k.dtype() == dtype && args.q.dim(1) == args.kv.num_kv_heads() * kHeads &&
         args.kv.page_rows() == kPageRows;
}

void LaunchDensePrefill(const DenseAttentionArgs& args, int num_sms, cudaStream_t stream) {
  if (args.tokens.tiles.empty() || args.tokens.tiles.dim(0) == 0) return;
  DispatchHopper(args.q, args.out.dim(2), [&]<typename T, int kDk, int kDv>() {
    Launch<T, kDk, kDv>(args, num_sms, stream);
  });
}

}  // namespace nsa::cuda
