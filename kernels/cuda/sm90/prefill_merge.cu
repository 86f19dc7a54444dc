// The last kernel of a prefill chunk. A persistent block takes every gridDim.x-th group of 8
// neighbouring tokens of a tile and one KV head: 128 query rows. Two consumer warpgroups hold 4
// tokens each, warp w the 16 heads of token w. In this order:
//
//   1. the selected branch's forced blocks, which all tokens of a tile share (below
//      PrefillTuning::inline_blocks: all blocks, each token masking what it did not choose)
//   2. the window's pages, and between their products the partials of prefill_selected.cu
//   3. gates, the compressed branch's output, and the store
//
// One producer warp loads Q and pages, another the partials, each through rings of its own; the
// latter also brings what step 3 reads into the L2.
// Bound by the partials' bytes, 16 * d_v * 2 per (token, KV head, slot); the products of steps 1
// and 2 take about as long and run underneath.

#include "base/check.h"
#include "kernels/cuda/device/transpose_quad.cuh"
#include "kernels/cuda/ptx/bulk_copy.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/prefetch.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/sm90/attend_page.cuh"
#include "kernels/cuda/sm90/prefill_kernel.cuh"
#include "kernels/cuda/sm90/prefill_plan.h"

namespace nsa::cuda {
namespace {

constexpr int kConsumers = 2;
constexpr int kThreads = 128 * (1 + kConsumers);
constexpr int kWarpTokens = 4;  // tokens of a consumer, one per warp
constexpr int kGroupTokens = kConsumers * kWarpTokens;
constexpr int kGroupsPerTile = kPrefillBlock / kGroupTokens;
constexpr int kPartialStages = 2;
constexpr int kProducerRegisters = 32;
constexpr int kConsumerRegisters = 232;
constexpr int kQueryBoxBytes = kGroupTokens * kPrefillGroup * kBoxColumns * 2;
constexpr int kConsumerQueryBytes = kQueryBoxBytes / kConsumers;  // of one box
constexpr uint32_t kFullMask = 0xffffffffu;

template <int kDk, int kDv>
struct Shared {
  static constexpr int kPageStages = kDk > 128 ? 2 : 3;
  static constexpr int kQueryBytes = kDk / kBoxColumns * kQueryBoxBytes;
  static constexpr int kKeyBytes = kDk / kBoxColumns * kPageBoxBytes;
  static constexpr int kValueBytes = kDv / kBoxColumns * kPageBoxBytes;
  static constexpr int kPartialBytes = kPrefillGroup * kDv * 2;  // of one token

  alignas(1024) uint8_t q[kQueryBytes];
  alignas(1024) uint8_t k[kPageStages][kKeyBytes];
  alignas(1024) uint8_t v[kPageStages][kValueBytes];
  alignas(16) uint8_t partial[kConsumers][kPartialStages][kWarpTokens][kPartialBytes];
  alignas(16) float lse[kGroupTokens][kMaxPrefillSelected * kPrefillGroup];
  uint64_t q_full, q_empty, lse_full, lse_empty;
  uint64_t k_full[kPageStages], k_empty[kPageStages];
  uint64_t v_full[kPageStages], v_empty[kPageStages];
  uint64_t partial_full[kConsumers][kPartialStages], partial_empty[kConsumers][kPartialStages];
};

struct Maps {
  CUtensorMap q;             // [T, H, d_k] in boxes of 64 columns, 16 heads, 8 tokens
  CUtensorMap sel_k, sel_v;  // [pages * K * page rows, d] in boxes of 64 columns, 64 rows
  CUtensorMap win_k, win_v;
};

struct Params {
  PrefillChunk chunk;
  const float* gates;  // [T, H, 3]
  const void* cmp;     // [T, H, d_v]
  void* out;           // [T, H, d_v]
  const int32_t* win_table;
  int32_t win_table_width, win_page_rows, window_tokens;
  float scale;  // softmax scale * log2(e)
};

// One unit of work: tokens [first_token, + num_tokens) of a tile, at most 8, and a KV head.
struct Group {
  int tile, sequence, head;
  int first_token, num_tokens, first_position;
  int tile_offset;  // of the first token in its tile
  int own;          // the tile's own block
  int last_row;     // of the own block: rows above may never have been written
  int num_slots;
  int num_initial, local_begin;  // selected here: [0, num_initial) and [local_begin, own]
  int window_begin;              // first page of the window

  __device__ Group(const Params& params, int index) {
    const PrefillChunk& chunk = params.chunk;
    const int group = index % kGroupsPerTile, rest = index / kGroupsPerTile;
    head = rest % chunk.num_kv_heads;
    tile = rest / chunk.num_kv_heads;
    const int4 entry = reinterpret_cast<const int4*>(chunk.tiles)[tile];
    tile_offset = group * kGroupTokens;
    sequence = entry.x;
    first_token = entry.y + tile_offset;
    num_tokens = min(kGroupTokens, entry.z - tile_offset);
    first_position = entry.w + tile_offset;
    own = entry.w / kPrefillBlock;
    last_row = (entry.w + entry.z - 1) % kPrefillBlock;
    num_slots = chunk.NumSlots(own);
    num_initial = own < chunk.num_inline_blocks ? own + 1 : min(chunk.num_initial, own + 1);
    local_begin = max(num_initial, own - chunk.num_local + 1);
    window_begin = max(0, first_position - params.window_tokens + 1) / kPrefillBlock;
  }
  __device__ bool empty() const { return num_tokens <= 0; }
  __device__ int num_selected_pages() const { return num_initial + own + 1 - local_begin; }
  __device__ int SelectedBlock(int i) const {
    return i < num_initial ? i : local_begin + i - num_initial;
  }
  __device__ int num_window_pages() const { return own + 1 - window_begin; }
  __device__ int64_t FirstPartial(const PrefillChunk& chunk, int token_of_group) const {
    const int64_t local_token = int64_t{tile} * kPrefillBlock + tile_offset + token_of_group;
    return (local_token * chunk.num_kv_heads + head) * chunk.num_slots;
  }
};

__device__ int NumGroups(const PrefillChunk& chunk) {
  return chunk.num_tiles * chunk.num_kv_heads * kGroupsPerTile;
}

// Warp 0 of the producers, one thread: Q and pages.
template <int kDk, int kDv>
__device__ void ProducePages(Shared<kDk, kDv>& shared, const Maps& maps, const Params& params) {
  using Plan = Shared<kDk, kDv>;
  const PrefillChunk& chunk = params.chunk;
  Ring<1> query;
  Ring<Plan::kPageStages> page;
  const auto load_page = [&](const CUtensorMap& k_map, const CUtensorMap& v_map, int row) {
    const uint32_t k_full = SharedAddress(&shared.k_full[page.stage]);
    Wait(SharedAddress(&shared.k_empty[page.stage]), page.parity ^ 1);
    ArriveExpectBytes(k_full, Plan::kKeyBytes);
    for (int box = 0; box < kDk / kBoxColumns; ++box) {
      LoadBox2(SharedAddress(shared.k[page.stage]) + box * kPageBoxBytes, &k_map, k_full,
               box * kBoxColumns, row);
    }
    const uint32_t v_full = SharedAddress(&shared.v_full[page.stage]);
    Wait(SharedAddress(&shared.v_empty[page.stage]), page.parity ^ 1);
    ArriveExpectBytes(v_full, Plan::kValueBytes);
    for (int box = 0; box < kDv / kBoxColumns; ++box) {
      LoadBox2(SharedAddress(shared.v[page.stage]) + box * kPageBoxBytes, &v_map, v_full,
               box * kBoxColumns, row);
    }
    page.Advance();
  };

  for (int index = blockIdx.x; index < NumGroups(chunk); index += gridDim.x) {
    const Group group(params, index);
    if (group.empty()) continue;
    const uint32_t q_full = SharedAddress(&shared.q_full);
    Wait(SharedAddress(&shared.q_empty), query.parity ^ 1);
    ArriveExpectBytes(q_full, Plan::kQueryBytes);
    for (int box = 0; box < kDk / kBoxColumns; ++box) {
      LoadBox3(SharedAddress(shared.q) + box * kQueryBoxBytes, &maps.q, q_full, box * kBoxColumns,
               group.head * kPrefillGroup, group.first_token);
    }
    query.Advance();

    const int32_t* table = chunk.table + int64_t{group.sequence} * chunk.table_width;
    for (int i = 0; i < group.num_selected_pages(); ++i) {
      const int page_id = table[group.SelectedBlock(i)];
      load_page(maps.sel_k, maps.sel_v,
                (page_id * chunk.num_kv_heads + group.head) * kPrefillBlock);
    }
    const int32_t* win_table = params.win_table + int64_t{group.sequence} * params.win_table_width;
    for (int i = 0; i < group.num_window_pages(); ++i) {
      const int row = (group.window_begin + i) * kPrefillBlock;
      const int page_id = win_table[row / params.win_page_rows % params.win_table_width];
      load_page(maps.win_k, maps.win_v,
                (page_id * chunk.num_kv_heads + group.head) * params.win_page_rows +
                    row % params.win_page_rows);
    }
  }
}

// What a token's store reads from device memory, into the L2.
template <int kDv>
__device__ __forceinline__ void PrefetchCompressed(const Params& params, const Group& group,
                                                   int token_of_group) {
  const int64_t row =
      (int64_t{group.first_token + token_of_group} * params.chunk.num_kv_heads + group.head) *
      kPrefillGroup;
  PrefetchBulk(static_cast<const uint8_t*>(params.cmp) + row * kDv * 2, kPrefillGroup * kDv * 2);
  PrefetchBulk(params.gates + row * 3, kPrefillGroup * 3 * sizeof(float));
}

// Warp 1 of the producers: the partials and their log-sum-exps, lane i those of token i.
template <int kDk, int kDv>
__device__ void ProducePartials(Shared<kDk, kDv>& shared, const Params& params) {
  using Plan = Shared<kDk, kDv>;
  const PrefillChunk& chunk = params.chunk;
  const int lane = threadIdx.x % 32;
  const auto* partial_out = static_cast<const uint8_t*>(chunk.partial_out);
  Ring<1> lse;
  Ring<kPartialStages> ring;  // of both consumers
  for (int index = blockIdx.x; index < NumGroups(chunk); index += gridDim.x) {
    const Group group(params, index);
    if (group.empty()) continue;
    const bool loads = lane < group.num_tokens;
    if (loads) PrefetchCompressed<kDv>(params, group, lane);
    if (group.num_slots == 0) continue;
    const int64_t first = group.FirstPartial(chunk, loads ? lane : 0);

    const uint32_t lse_bytes = group.num_slots * kPrefillGroup * sizeof(float);
    const uint32_t lse_full = SharedAddress(&shared.lse_full);
    Wait(SharedAddress(&shared.lse_empty), lse.parity ^ 1);
    if (lane == 0) ArriveExpectBytes(lse_full, group.num_tokens * lse_bytes);
    __syncwarp();
    if (loads) {
      LoadBulk(SharedAddress(shared.lse[lane]), chunk.partial_lse + first * kPrefillGroup,
               lse_bytes, lse_full);
    }
    lse.Advance();

    for (int slot = 0; slot < group.num_slots; ++slot, ring.Advance()) {
      const int consumer = lane / kWarpTokens % kConsumers;
      const uint32_t full = SharedAddress(&shared.partial_full[consumer][ring.stage]);
      if (lane < kGroupTokens) {
        Wait(SharedAddress(&shared.partial_empty[consumer][ring.stage]), ring.parity ^ 1);
        if (kForRacecheck) {  // it takes copies of all lanes for those of lane 0
          for (auto& empty : shared.partial_empty) {
            Wait(SharedAddress(&empty[ring.stage]), ring.parity ^ 1);
          }
        }
        const int tokens = min(kWarpTokens, max(0, group.num_tokens - consumer * kWarpTokens));
        if (lane % kWarpTokens == 0) ArriveExpectBytes(full, tokens * Plan::kPartialBytes);
      }
      __syncwarp();
      if (loads) {
        LoadBulk(SharedAddress(shared.partial[consumer][ring.stage][lane % kWarpTokens]),
                 partial_out + (first + slot) * Plan::kPartialBytes, Plan::kPartialBytes, full);
      }
    }
  }
}

// A bit per block below 64: whether the token of this warp chose it.
__device__ uint64_t ChosenBlocks(const PrefillChunk& chunk, int token, int head) {
  const int lane = threadIdx.x % 32;
  const int64_t list = (int64_t{token} * chunk.num_kv_heads + head) * chunk.num_selected;
  const int block = lane < chunk.num_selected ? chunk.blocks[list + lane] : -1;
  const uint32_t low = block >= 0 && block < 32 ? 1u << block : 0;
  const uint32_t high = block >= 32 && block < 64 ? 1u << (block - 32) : 0;
  return static_cast<uint64_t>(__reduce_or_sync(kFullMask, high)) << 32 |
         __reduce_or_sync(kFullMask, low);
}

// One consumer warpgroup.
template <typename T, int kDk, int kDv>
class Consumer {
  using Plan = Shared<kDk, kDv>;

 public:
  __device__ Consumer(Plan& shared, const Params& params)
      : shared_(shared),
        params_(params),
        self_(ConsumerIndex()),
        warp_(threadIdx.x % 128 / 32),
        lane_(threadIdx.x % 32) {}

  __device__ __forceinline__ void Run() {
    for (int index = blockIdx.x; index < NumGroups(params_.chunk); index += gridDim.x) {
      const Group group(params_, index);
      if (!group.empty()) Attend(group);
    }
  }

 private:
  __device__ __forceinline__ void Attend(const Group& group) {
    const int token_of_group = self_ * kWarpTokens + warp_;
    const bool valid = token_of_group < group.num_tokens;
    const int token = group.first_token + (valid ? token_of_group : 0);
    const int position = group.first_position + token_of_group;
    const int first_position = group.first_position + self_ * kWarpTokens;
    const int last_position = first_position + kWarpTokens - 1;  // of this warpgroup's

    float sel[kDv / 2] = {}, win[kDv / 2] = {};
    OnlineRows sel_rows, win_rows;
    if (group.num_slots > 0) {
      Wait(SharedAddress(&shared_.lse_full), lse_.parity);
      TopOfPartials(token_of_group, group.num_slots, sel_rows);
    }
    Wait(SharedAddress(&shared_.q_full), query_.parity);

    const bool masks_blocks =
        group.own < params_.chunk.num_inline_blocks && group.own >= params_.chunk.num_selected;
    const uint64_t chosen =
        masks_blocks ? ChosenBlocks(params_.chunk, token, group.head) : ~uint64_t{0};
    for (int i = 0; i < group.num_selected_pages(); ++i) {
      const int block = group.SelectedBlock(i);
      const int end = masks_blocks && (chosen >> block & 1) == 0 ? 0
                      : block == group.own                       ? position % kPrefillBlock + 1
                                                                 : kPrefillBlock;
      AttendPage(sel, sel_rows, 0, end, 0,
                 block == group.own ? last_position + 1 - block * kPrefillBlock : kPrefillBlock,
                 block == group.own ? group.last_row : kPrefillBlock - 1, [] {});
    }
    float sel_sum[2] = {QuadSum(sel_rows.sum[0]), QuadSum(sel_rows.sum[1])};

    int slot = 0;
    const auto merge_next = [&] {
      if (slot < group.num_slots) AddPartial(token_of_group, slot++, sel_rows.top, sel, sel_sum);
    };
    for (int i = 0; i < group.num_window_pages(); ++i) {
      const int page_begin = (group.window_begin + i) * kPrefillBlock;
      AttendPage(win, win_rows, position - params_.window_tokens + 1 - page_begin,
                 position + 1 - page_begin, first_position - params_.window_tokens + 1 - page_begin,
                 last_position + 1 - page_begin,
                 group.window_begin + i == group.own ? group.last_row : kPrefillBlock - 1,
                 merge_next);
    }
    ArriveForWarp(lane_, SharedAddress(&shared_.q_empty));
    query_.Advance();
    Compressed cmp = LoadCompressed(token, group.head);
    while (slot < group.num_slots) merge_next();
    if (group.num_slots > 0) {
      __syncwarp();
      ArriveForWarp(lane_, SharedAddress(&shared_.lse_empty));
      lse_.Advance();
    }
    const float win_sum[2] = {QuadSum(win_rows.sum[0]), QuadSum(win_rows.sum[1])};
    Store(token, group.head, cmp, sel, sel_sum, win, win_sum, valid);
  }

  // Starts the selected branch's maxima at the largest partial: nothing is rescaled later.
  __device__ __forceinline__ void TopOfPartials(int token_of_group, int num_slots,
                                                OnlineRows& rows) const {
    const float* lse = shared_.lse[token_of_group] + lane_ / 4;
    for (int slot = 0; slot < num_slots; ++slot) {
      rows.top[0] = fmaxf(rows.top[0], lse[slot * kPrefillGroup]);
      rows.top[1] = fmaxf(rows.top[1], lse[slot * kPrefillGroup + 8]);
    }
    rows.FindSet();
  }

  // The next page of the ring, of which this warp's token sees columns [begin, end). `meanwhile`
  // is called while each of the two products runs.
  template <typename Meanwhile>
  __device__ __forceinline__ void AttendPage(float (&out)[kDv / 2], OnlineRows& rows, int begin,
                                             int end, int first_row, int end_row, int last_row,
                                             Meanwhile meanwhile) {
    const int stage = page_.stage;
    float scores[kPageScores];
    uint32_t weights[kPageRows / 16][4];
    Wait(SharedAddress(&shared_.k_full[stage]), page_.parity);
    IssueScores<T, kDk, kQueryBoxBytes>(scores,
                                        SharedAddress(shared_.q) + self_ * kConsumerQueryBytes,
                                        SharedAddress(shared_.k[stage]));
    meanwhile();
    WaitWgmma<0>();
    PinRegisters(scores);
    ArriveForWarp(lane_, SharedAddress(&shared_.k_empty[stage]));

    if (begin > 0 || end < kPrefillBlock) MaskColumns(scores, begin, end);
    WeighNext<T>(scores, params_.scale, rows, weights, out);

    Wait(SharedAddress(&shared_.v_full[stage]), page_.parity);
    if (last_row < kPrefillBlock - 1) {
      ClearRowsFrom<kDv, kPageRows>(shared_.v[stage], last_row + 1, 1 + self_);
    }
    // From one lane, so that the compiler knows that a warpgroup goes the same way.
    IssueValues<T, kDv>(out, weights, SharedAddress(shared_.v[stage]), /*accumulate=*/true,
                        __shfl_sync(kFullMask, first_row, 0), __shfl_sync(kFullMask, end_row, 0));
    meanwhile();
    WaitWgmma<0>();
    PinRegisters(out);
    ArriveForWarp(lane_, SharedAddress(&shared_.v_empty[stage]));
    page_.Advance();
  }

  __device__ __forceinline__ void AddPartial(int token_of_group, int slot, const float (&top)[2],
                                             float (&out)[kDv / 2], float (&sum)[2]) {
    const float* lse = shared_.lse[token_of_group] + slot * kPrefillGroup + lane_ / 4;
    const float weight[2] = {Exp2(lse[0] - top[0]), Exp2(lse[8] - top[1])};
    sum[0] += weight[0];
    sum[1] += weight[1];
    Wait(SharedAddress(&shared_.partial_full[self_][partial_.stage]), partial_.parity);
    const auto* packed =
        reinterpret_cast<const uint4*>(shared_.partial[self_][partial_.stage][warp_]) + lane_;
#pragma unroll
    for (int c = 0; c < kDv / 16; ++c) {
      const uint4 values = packed[c * 32];
      AddPair<T>(values.x, weight[0], out[8 * c], out[8 * c + 1]);
      AddPair<T>(values.y, weight[1], out[8 * c + 2], out[8 * c + 3]);
      AddPair<T>(values.z, weight[0], out[8 * c + 4], out[8 * c + 5]);
      AddPair<T>(values.w, weight[1], out[8 * c + 6], out[8 * c + 7]);
    }
    PinRegisters(out);  // what was read has arrived, before the memory may be overwritten
    __syncwarp();
    ArriveForWarp(lane_, SharedAddress(&shared_.partial_empty[self_][partial_.stage]));
    partial_.Advance();
  }

  // The compressed branch's output and the gates of this thread's two rows.
  struct Compressed {
    uint32_t out[2][kDv / 32][4];  // 8 neighbouring columns of every 32
    float gates[2][3];
  };
  __device__ __forceinline__ int64_t OutputRow(int token, int head, int half) const {
    return int64_t{token} * params_.chunk.num_kv_heads * kPrefillGroup + head * kPrefillGroup +
           lane_ / 4 + half * 8;
  }
  __device__ __forceinline__ Compressed LoadCompressed(int token, int head) const {
    Compressed loaded;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = OutputRow(token, head, half);
      const auto* chunks = static_cast<const uint4*>(params_.cmp) + row * (kDv / 8) + lane_ % 4;
#pragma unroll
      for (int i = 0; i < kDv / 32; ++i) {
        const uint4 chunk = chunks[i * 4];
        loaded.out[half][i][0] = chunk.x;
        loaded.out[half][i][1] = chunk.y;
        loaded.out[half][i][2] = chunk.z;
        loaded.out[half][i][3] = chunk.w;
      }
#pragma unroll
      for (int i = 0; i < 3; ++i) loaded.gates[half][i] = params_.gates[row * 3 + i];
    }
    return loaded;
  }

  __device__ __forceinline__ void Store(int token, int head, Compressed& cmp,
                                        const float (&sel)[kDv / 2], const float (&sel_sum)[2],
                                        const float (&win)[kDv / 2], const float (&win_sum)[2],
                                        bool valid) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float cmp_factor = Sigmoid(cmp.gates[half][0]);
      const float sel_factor = Sigmoid(cmp.gates[half][1]) / sel_sum[half];
      const float win_factor = Sigmoid(cmp.gates[half][2]) / win_sum[half];
      auto* out =
          static_cast<uint4*>(params_.out) + OutputRow(token, head, half) * (kDv / 8) + lane_ % 4;
#pragma unroll
      for (int i = 0; i < kDv / 32; ++i) {
        uint32_t(&x)[4] = cmp.out[half][i];
        TransposeQuad(x);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int at = 4 * (4 * i + j) + 2 * half;
          float low = sel[at] * sel_factor + win[at] * win_factor;
          float high = sel[at + 1] * sel_factor + win[at + 1] * win_factor;
          AddPair<T>(x[j], cmp_factor, low, high);
          x[j] = PackPair<T>(low, high);
        }
        TransposeQuad(x);
        if (valid) out[i * 4] = {x[0], x[1], x[2], x[3]};
      }
    }
  }

  Plan& shared_;
  const Params& params_;
  const int self_, warp_, lane_;
  Ring<1> query_, lse_;
  Ring<Plan::kPageStages> page_;
  Ring<kPartialStages> partial_;
};

template <int kDk, int kDv>
__device__ void InitBarriers(Shared<kDk, kDv>& shared) {
  constexpr int kConsumerWarps = kConsumers * 4;
  const auto init = [](uint64_t& full, uint64_t& empty, int num_consumer_warps) {
    InitBarrier(SharedAddress(&full), 1);
    InitBarrier(SharedAddress(&empty), num_consumer_warps * kWarpArrivals);
  };
  init(shared.q_full, shared.q_empty, kConsumerWarps);
  init(shared.lse_full, shared.lse_empty, kConsumerWarps);
  for (int s = 0; s < Shared<kDk, kDv>::kPageStages; ++s) {
    init(shared.k_full[s], shared.k_empty[s], kConsumerWarps);
    init(shared.v_full[s], shared.v_empty[s], kConsumerWarps);
  }
  for (int c = 0; c < kConsumers; ++c) {
    for (int s = 0; s < kPartialStages; ++s) {
      init(shared.partial_full[c][s], shared.partial_empty[c][s], 4);
    }
  }
  FenceBarrierInit();
}

// Grid: one block per multiprocessor.
template <typename T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    MergeBranches(const __grid_constant__ Maps maps, const __grid_constant__ Params params) {
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<kDk, kDv>*>(AlignShared(memory));
  if (threadIdx.x == 0) InitBarriers(shared);
  __syncthreads();
  if (threadIdx.x < 128) {
    ShrinkRegisters<kProducerRegisters>();
    if (threadIdx.x == 0) ProducePages(shared, maps, params);
    if (threadIdx.x / 32 == 1) ProducePartials(shared, params);
  } else {
    GrowRegisters<kConsumerRegisters>();
    Consumer<T, kDk, kDv>(shared, params).Run();
  }
}

template <typename T, int kDk, int kDv>
void Launch(const PrefillBranchesArgs& args, const PrefillChunk& chunk, int num_sms,
            cudaStream_t stream) {
  const Maps maps{.q = MapQueries(args.q, kPrefillGroup, kGroupTokens),
                  .sel_k = MapRows(args.sel.k),
                  .sel_v = MapRows(args.sel.v),
                  .win_k = MapRows(args.win.k),
                  .win_v = MapRows(args.win.v)};
  const Params params{.chunk = chunk,
                      .gates = args.gate_logits.data<float>(),
                      .cmp = args.cmp.raw(),
                      .out = args.out.raw(),
                      .win_table = args.win.table.data<int32_t>(),
                      .win_table_width = static_cast<int32_t>(args.win.table.dim(1)),
                      .win_page_rows = static_cast<int32_t>(args.win.page_rows()),
                      .window_tokens = static_cast<int32_t>(args.shape.window_tokens),
                      .scale = args.softmax_scale * kLog2E};
  static_assert(sizeof(Shared<kDk, kDv>) + kSharedAlignment <= kMaxSharedBytes);
  LaunchPersistent(
      {.num_blocks = num_sms, .num_threads = kThreads, .shared_bytes = sizeof(Shared<kDk, kDv>)},
      stream, MergeBranches<T, kDk, kDv>, maps, params);
}

}  // namespace

void LaunchPrefillMerge(const PrefillBranchesArgs& args, const PrefillChunk& chunk, int num_sms,
                        cudaStream_t stream) {
  DispatchHopper(args.q, args.out.dim(2), [&]<typename T, int kDk, int kDv>() {
    Launch<T, kDk, kDv>(args, chunk, num_sms, stream);
  });
}

}  // namespace nsa::cuda
