// Attends the lists of prefill_plan.cu, one KV head after another so that the head's Q stays in the
// L2. A persistent block per multiprocessor takes every gridDim.x-th item: producer warps load the
// block's K and V once and the Q rows of the item's pairs, four pairs a tile; the consumer
// warpgroups take tiles in turn. Warp w of a warpgroup holds the 16 heads of the tile's pair w, so
// partials go to memory straight from registers.
//
// Bound by the partials' traffic: 16 * d_v * 2 bytes written per pair (and read by the merge).

#include "base/check.h"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/sm90/attend_page.cuh"
#include "kernels/cuda/sm90/prefill_kernel.cuh"
#include "kernels/cuda/sm90/prefill_plan.h"

namespace nsa::cuda {
namespace {

constexpr int kConsumers = 3;  // warpgroups
constexpr int kThreads = 128 * (1 + kConsumers);
constexpr int kPageStages = 2;
constexpr int kTilePairs = 4;
constexpr int kProducerRegisters = 56;
constexpr int kConsumerRegisters = 152;
constexpr uint32_t kFullMask = 0xffffffffu;
constexpr int kQueryBoxBytes = kTilePairs * kPrefillGroup * kBoxColumns * 2;

template <int kDk, int kDv>
struct Shared {
  static constexpr int kQueryStages = kDk > 128 ? 2 : 3;  // tiles of Q per consumer
  static constexpr int kQueryBytes = kDk / kBoxColumns * kQueryBoxBytes;
  static constexpr int kKeyBytes = kDk / kBoxColumns * kPageBoxBytes;
  static constexpr int kValueBytes = kDv / kBoxColumns * kPageBoxBytes;

  alignas(1024) uint8_t k[kPageStages][kKeyBytes];
  alignas(1024) uint8_t v[kPageStages][kValueBytes];
  alignas(1024) uint8_t q[kConsumers][kQueryStages][kQueryBytes];
  uint64_t page_full[kPageStages], page_empty[kPageStages];
  uint64_t q_full[kConsumers][kQueryStages], q_empty[kConsumers][kQueryStages];
};

struct Maps {
  CUtensorMap q;  // [T, H, d_k] in boxes of 64 columns, 16 heads, 1 token
  CUtensorMap k;  // [pages * K * 64, d_k] in boxes of 64 columns, 64 rows
  CUtensorMap v;
};

// Calls f(item, head) for this block's items, in order.
template <typename F>
__device__ __forceinline__ void ForEachItem(const PrefillChunk& chunk, F&& f) {
  int i = blockIdx.x;
  for (int head = 0; head < chunk.num_kv_heads; ++head) {
    const int num_items = chunk.NumItems(head);
    const PrefillItem* items = chunk.Items(head);
    for (; i < num_items; i += gridDim.x) {
      const PrefillItem item = items[i];  // not read again after every store to memory
      f(item, head);
    }
    i -= num_items;
  }
}

// Warp 0 of the producers: K and V, an item ahead of what is attended.
template <int kDk, int kDv>
__device__ void ProducePages(Shared<kDk, kDv>& shared, const Maps& maps,
                             const PrefillChunk& chunk) {
  using Plan = Shared<kDk, kDv>;
  const int lane = threadIdx.x % 32;
  Ring<kPageStages> page;
  ForEachItem(chunk, [&](const PrefillItem& item, int) {
    Wait(SharedAddress(&shared.page_empty[page.stage]), page.parity ^ 1);
    const uint32_t page_full = SharedAddress(&shared.page_full[page.stage]);
    if (lane == 0) ArriveExpectBytes(page_full, Plan::kKeyBytes + Plan::kValueBytes);
    __syncwarp();
    const int row = item.page_head * kPageRows;
    if (lane < kDk / kBoxColumns) {
      LoadBox2(SharedAddress(shared.k[page.stage]) + lane * kPageBoxBytes, &maps.k, page_full,
               lane * kBoxColumns, row);
    } else if (lane >= 16 && lane < 16 + kDv / kBoxColumns) {
      LoadBox2(SharedAddress(shared.v[page.stage]) + (lane - 16) * kPageBoxBytes, &maps.v,
               page_full, (lane - 16) * kBoxColumns, row);
    }
    page.Advance();
  });
}

// Warp 1 of the producers: the Q rows of the items' pairs.
template <int kDk, int kDv>
__device__ void ProduceQueries(Shared<kDk, kDv>& shared, const Maps& maps,
                               const PrefillChunk& chunk) {
  using Plan = Shared<kDk, kDv>;
  const int lane = threadIdx.x % 32;
  Ring<Plan::kQueryStages> query[kConsumers];
  int consumer = 0;
  ForEachItem(chunk, [&](const PrefillItem& item, int head) {
    PrefillPair pair[2] = {};
    if (lane < item.count) pair[0] = chunk.pairs[item.begin + lane];
    if (lane + 32 < item.count) pair[1] = chunk.pairs[item.begin + lane + 32];
    for (int first = 0; first < item.count; first += kTilePairs) {
      const int num_pairs = min(kTilePairs, item.count - first);
      const int own = lane / (kDk / kBoxColumns), box = lane % (kDk / kBoxColumns);
      const int token =
          __shfl_sync(kFullMask, first < 32 ? pair[0].token : pair[1].token, (first + own) % 32);
      // Copies and waits are indexed by a constant so that the rings stay in registers.
#pragma unroll
      for (int c = 0; c < kConsumers; ++c) {
        if (c != consumer) continue;
        const int stage = query[c].stage;
        Wait(SharedAddress(&shared.q_empty[c][stage]), query[c].parity ^ 1);
        const uint32_t full = SharedAddress(&shared.q_full[c][stage]);
        if (lane == 0) ArriveExpectBytes(full, num_pairs * (Plan::kQueryBytes / kTilePairs));
        __syncwarp();
        if (own < num_pairs) {
          LoadBox3(SharedAddress(shared.q[c][stage]) + box * kQueryBoxBytes +
                       own * (kQueryBoxBytes / kTilePairs),
                   &maps.q, full, box * kBoxColumns, head * kPrefillGroup, token);
        }
        query[c].Advance();
      }
      consumer = consumer + 1 == kConsumers ? 0 : consumer + 1;
    }
  });
}

// Normalises a pair's result and stores it with its log-sum-exp.
template <typename T, int kDv>
__device__ __forceinline__ void StorePartial(const PrefillChunk& chunk, int partial,
                                             const float (&out)[kDv / 2], const float (&top)[2],
                                             const float (&sum)[2]) {
  const int lane = threadIdx.x % 32;
  const float inverse[2] = {1.0F / sum[0], 1.0F / sum[1]};
  uint4* target =
      static_cast<uint4*>(chunk.partial_out) + int64_t{partial} * (kDv / 16) * 32 + lane;
#pragma unroll
  for (int c = 0; c < kDv / 16; ++c) __stcs(target + c * 32, PackFragment<T>(&out[8 * c], inverse));
  if (lane % 4 == 0) {
    float* lse = chunk.partial_lse + int64_t{partial} * kPrefillGroup + lane / 4;
    lse[0] = top[0] + __log2f(sum[0]);
    lse[8] = top[1] + __log2f(sum[1]);
  }
}

// Weights of a pair's scores, relative to 0 where they fit and else to their maximum: to `top`.
template <typename T>
__device__ __forceinline__ void WeighOnce(const float (&scores)[kPageScores], float scale,
                                          uint32_t (&weights)[kPageRows / 16][4], float (&top)[2],
                                          float (&sum)[2]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    constexpr float kMin = 1 / kMaxWeights<T>;
    top[0] = top[1] = 0;
    WeighScores<T>(scores, scale, top, weights, sum);
    const bool fits =
        sum[0] >= kMin && sum[0] <= kMaxWeights<T> && sum[1] >= kMin && sum[1] <= kMaxWeights<T>;
    if (__all_sync(kFullMask, fits)) return;
  }
  MaxOfRows(scores, top);
  top[0] *= scale;
  top[1] *= scale;
  WeighScores<T>(scores, scale, top, weights, sum);
}

template <typename T, int kDk, int kDv>
__device__ void Consume(Shared<kDk, kDv>& shared, const PrefillChunk& chunk, float scale) {
  const int self = ConsumerIndex();
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  Ring<kPageStages> page;
  Ring<Shared<kDk, kDv>::kQueryStages> query;
  float scores[kPageScores], out[kDv / 2], top[2], sum[2];
  const auto issue_scores = [&](uint32_t k) {
    Wait(SharedAddress(&shared.q_full[self][query.stage]), query.parity);
    IssueScores<T, kDk, kQueryBoxBytes>(scores, SharedAddress(shared.q[self][query.stage]), k);
  };
  const auto weigh_and_issue_values = [&](uint32_t v) {
    WaitWgmma<0>();
    PinRegisters(scores);
    ArriveForWarp(lane, SharedAddress(&shared.q_empty[self][query.stage]));
    query.Advance();
    uint32_t weights[kPageRows / 16][4];
    WeighOnce<T>(scores, scale, weights, top, sum);
    IssueValues<T, kDv>(out, weights, v, /*accumulate=*/false);
    sum[0] = QuadSum(sum[0]);
    sum[1] = QuadSum(sum[1]);
  };
  const auto partial_of = [&](const PrefillItem& item, int tile) {
    const int pair = tile * kTilePairs + warp;
    return pair < item.count ? chunk.pairs[item.begin + pair].partial : -1;
  };
  const auto store = [&](int partial) {
    PinRegisters(out);
    if (partial >= 0) StorePartial<T, kDv>(chunk, partial, out, top, sum);
  };

  int turn = 0;  // whose tile an item's first is
  ForEachItem(chunk, [&](const PrefillItem& item, int) {
    const int num_tiles = (item.count + kTilePairs - 1) / kTilePairs;
    int tile = (self + kConsumers - turn) % kConsumers;
    turn = (turn + num_tiles) % kConsumers;
    Wait(SharedAddress(&shared.page_full[page.stage]), page.parity);
    if (tile < num_tiles) {
      const uint32_t k = SharedAddress(shared.k[page.stage]);
      const uint32_t v = SharedAddress(shared.v[page.stage]);
      issue_scores(k);
      // A tile's result is stored while the next tile's scores are computed.
      for (; tile + kConsumers < num_tiles; tile += kConsumers) {
        const int partial = partial_of(item, tile);
        weigh_and_issue_values(v);
        issue_scores(k);
        WaitWgmma<1>();
        store(partial);
      }
      const int partial = partial_of(item, tile);
      weigh_and_issue_values(v);
      WaitWgmma<0>();
      store(partial);
    }
    ArriveForWarp(lane, SharedAddress(&shared.page_empty[page.stage]));
    page.Advance();
  });
}

// Grid: one block per multiprocessor.
template <typename T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    AttendLists(const __grid_constant__ Maps maps, PrefillChunk chunk, float scale) {
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<kDk, kDv>*>(AlignShared(memory));
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPageStages; ++s) {
      InitBarrier(SharedAddress(&shared.page_full[s]), 1);
      InitBarrier(SharedAddress(&shared.page_empty[s]), kConsumers * 4 * kWarpArrivals);
    }
    for (int c = 0; c < kConsumers; ++c) {
      for (int s = 0; s < Shared<kDk, kDv>::kQueryStages; ++s) {
        InitBarrier(SharedAddress(&shared.q_full[c][s]), 1);
        InitBarrier(SharedAddress(&shared.q_empty[c][s]), 4 * kWarpArrivals);
      }
    }
    FenceBarrierInit();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    ShrinkRegisters<kProducerRegisters>();
    if (threadIdx.x / 32 == 0) ProducePages<kDk, kDv>(shared, maps, chunk);
    if (threadIdx.x / 32 == 1) ProduceQueries<kDk, kDv>(shared, maps, chunk);
  } else {
    GrowRegisters<kConsumerRegisters>();
    Consume<T, kDk, kDv>(shared, chunk, scale);
  }
}

template <typename T, int kDk, int kDv>
void Launch(const PrefillBranchesArgs& args, const PrefillChunk& chunk, int num_sms,
            cudaStream_t stream) {
  const Maps maps{.q = MapQueries(args.q, kPrefillGroup, /*box_tokens=*/1),
                  .k = MapRows(args.sel.k),
                  .v = MapRows(args.sel.v)};
  static_assert(sizeof(Shared<kDk, kDv>) + kSharedAlignment <= kMaxSharedBytes);
  LaunchPersistent(
      {.num_blocks = num_sms, .num_threads = kThreads, .shared_bytes = sizeof(Shared<kDk, kDv>)},
      stream, AttendLists<T, kDk, kDv>, maps, chunk, args.softmax_scale * kLog2E);
}

}  // namespace

void LaunchPrefillSelected(const PrefillBranchesArgs& args, const PrefillChunk& chunk, int num_sms,
                           cudaStream_t stream) {
  DispatchHopper(args.q, args.out.dim(2), [&]<typename T, int kDk, int kDv>() {
    Launch<T, kDk, kDv>(args, chunk, num_sms, stream);
  });
}

}  // namespace nsa::cuda
