// The last kernel of a prefill chunk. Its unit of work is a pair of groups of 8 neighbouring tokens
// of a tile, and one KV head; a persistent cluster of two blocks takes every n-th pair, each block
// one group: 128 query rows. The warpgroups of a block:
//
//   producer   one thread loads Q and the pages of K and V: half of each page, for both blocks
//   merger     sums the partials of prefill_selected.cu to one per token, a group ahead of the
//   others attenders  two of them, 4 tokens each, warp w the 16 heads of token w: first the
//   selected
//              branch's forced blocks, which all tokens of a tile share (below
//              PrefillTuning::inline_blocks: all blocks, each token masking what it did not
//              choose), joined with the merged partials; then the window; then gates and the store
//
// Bound by the partials' bytes, 16 * d_v * 2 per (token, KV head, slot); the products take about as
// long and run beside them.

#include "base/check.h"
#include "kernels/cuda/ptx/bulk_copy.cuh"
#include "kernels/cuda/ptx/cluster.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/sm90/attend_page.cuh"
#include "kernels/cuda/sm90/prefill_kernel.cuh"
#include "kernels/cuda/sm90/prefill_plan.h"

namespace nsa::cuda {
namespace {

constexpr int kConsumers = 2;  // attenders
constexpr int kThreads = 128 * (2 + kConsumers);
constexpr int kWarpTokens = 4;  // tokens of a consumer, one per warp
constexpr int kGroupTokens = kConsumers * kWarpTokens;
constexpr int kClusterBlocks = 2;
constexpr int kPairTokens = kClusterBlocks * kGroupTokens;
constexpr int kPairsPerTile = kPrefillBlock / kPairTokens;
constexpr int kLoadRows = kPageRows / kClusterBlocks;  // of a page, by each block for both
constexpr int kLoadBytes = kPageBoxBytes / kClusterBlocks;
constexpr uint16_t kBothBlocks = 3;
constexpr int kMergerWarps = 4;
constexpr int kProducerRegisters = 24;
constexpr int kMergerRegisters = 120;
constexpr int kConsumerRegisters = 184;
constexpr int kQueryBoxBytes = kGroupTokens * kPrefillGroup * kBoxColumns * 2;
constexpr int kConsumerQueryBytes = kQueryBoxBytes / kConsumers;  // of one box
constexpr uint32_t kFullMask = 0xffffffffu;

// Where registers allow, attenders hold Q in them: with 64 rows of either side, products from
// shared memory alone would be bound by it.
template <int kDk>
inline constexpr bool kQueryInRegisters = kDk <= 128;

template <int kDk, int kDv>
struct Shared {
  static constexpr int kPageStages = kDk + kDv > 128 ? 2 : 4;
  static constexpr int kPartialStages = kDk > 128 ? 2 : 4;  // of each of the merger's warps
  static constexpr int kQueryBytes = kDk / kBoxColumns * kQueryBoxBytes;
  static constexpr int kKeyBytes = kDk / kBoxColumns * kPageBoxBytes;
  static constexpr int kValueBytes = kDv / kBoxColumns * kPageBoxBytes;
  static constexpr int kPartialBytes = kPrefillGroup * kDv * 2;  // of one token

  // A token's partial: out in the order of wgmma's registers, and log-sum-exps, base 2.
  struct Partial {
    alignas(16) uint8_t out[kPartialBytes];
    alignas(16) float lse[kPrefillGroup];
  };

  alignas(1024) uint8_t q[kQueryBytes];
  alignas(1024) uint8_t k[kPageStages][kKeyBytes];
  alignas(1024) uint8_t v[kPageStages][kValueBytes];
  Partial partial[kMergerWarps][kPartialStages];
  Partial merged[kGroupTokens];
  // The selected branch's share of the output, while its thread works on the window.
  uint4 selected[kConsumers][kDv / 16][128];
  uint64_t q_full, q_empty, merged_full, merged_empty;
  uint64_t k_full[kPageStages], k_empty[kPageStages];
  uint64_t v_full[kPageStages], v_empty[kPageStages];
  uint64_t partial_full[kMergerWarps][kPartialStages];
};

struct Maps {
  CUtensorMap q;             // [T, H, d_k] in boxes of 64 columns, 16 heads, 8 tokens
  CUtensorMap sel_k, sel_v;  // [pages * K * page rows, d] in boxes of 64 columns, 32 rows
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

// This block's group of a pair: tokens [first_token, + num_tokens) of a tile, at most 8, and a KV
// head. Only the pair's first group may be relied on to have tokens.
struct Group {
  int tile, sequence, head;
  int first_token, num_tokens, first_position;
  int tile_token;   // the tile's first token
  int tile_offset;  // of the first token in its tile
  bool pair_is_empty;
  int own;       // the tile's own block
  int last_row;  // of the own block: rows above may never have been written
  int num_slots;
  int num_initial, local_begin;  // selected here: [0, num_initial) and [local_begin, own]
  int window_begin;              // first page of the pair's window

  __device__ Group(const Params& params, int pair_index) {
    const PrefillChunk& chunk = params.chunk;
    const int pair_offset = pair_index % kPairsPerTile * kPairTokens;
    const int rest = pair_index / kPairsPerTile;
    head = rest % chunk.num_kv_heads;
    tile = rest / chunk.num_kv_heads;
    const int4 entry = reinterpret_cast<const int4*>(chunk.tiles)[tile];
    tile_offset = pair_offset + static_cast<int>(ClusterRank()) * kGroupTokens;
    pair_is_empty = pair_offset >= entry.z;
    sequence = entry.x;
    tile_token = entry.y;
    first_token = entry.y + tile_offset;
    num_tokens = min(kGroupTokens, entry.z - tile_offset);
    first_position = entry.w + tile_offset;
    own = entry.w / kPrefillBlock;
    last_row = (entry.w + entry.z - 1) % kPrefillBlock;
    num_slots = chunk.NumSlots(own);
    num_initial = own < chunk.num_inline_blocks ? own + 1 : min(chunk.num_initial, own + 1);
    local_begin = max(num_initial, own - chunk.num_local + 1);
    window_begin = max(0, entry.w + pair_offset - params.window_tokens + 1) / kPrefillBlock;
  }
  __device__ int num_selected_pages() const { return num_initial + own + 1 - local_begin; }
  __device__ int SelectedBlock(int i) const {
    return i < num_initial ? i : local_begin + i - num_initial;
  }
  __device__ int num_window_pages() const { return own + 1 - window_begin; }
  __device__ int FirstPartial(const PrefillChunk& chunk, int token_of_group) const {
    const int local_token = tile * kPrefillBlock + tile_offset + token_of_group;
    return (local_token * chunk.num_kv_heads + head) * chunk.num_slots;
  }
};

__device__ int NumPairs(const PrefillChunk& chunk) {
  return chunk.num_tiles * chunk.num_kv_heads * kPairsPerTile;
}
__device__ int FirstPair() { return blockIdx.x / kClusterBlocks; }
__device__ int PairStride() { return gridDim.x / kClusterBlocks; }

// The producer, one thread.
template <int kDk, int kDv>
__device__ void ProducePages(Shared<kDk, kDv>& shared, const Maps& maps, const Params& params) {
  using Plan = Shared<kDk, kDv>;
  const PrefillChunk& chunk = params.chunk;
  Ring<1> query;
  Ring<Plan::kPageStages> page;
  const int half = static_cast<int>(ClusterRank());
  const auto load_half = [&](uint8_t* target, const CUtensorMap& map, uint64_t& full,
                             uint64_t& empty, int num_boxes, int row) {
    Wait(SharedAddress(&empty), page.parity ^ 1);
    ArriveExpectBytes(SharedAddress(&full), num_boxes * kPageBoxBytes);
    for (int box = 0; box < num_boxes; ++box) {
      LoadBox2Multicast(SharedAddress(target) + box * kPageBoxBytes + half * kLoadBytes, &map,
                        SharedAddress(&full), box * kBoxColumns, row + half * kLoadRows,
                        kBothBlocks);
    }
  };
  const auto load_page = [&](const CUtensorMap& k_map, const CUtensorMap& v_map, int row) {
    load_half(shared.k[page.stage], k_map, shared.k_full[page.stage], shared.k_empty[page.stage],
              kDk / kBoxColumns, row);
    load_half(shared.v[page.stage], v_map, shared.v_full[page.stage], shared.v_empty[page.stage],
              kDv / kBoxColumns, row);
    page.Advance();
  };

  for (int index = FirstPair(); index < NumPairs(chunk); index += PairStride()) {
    const Group group(params, index);
    if (group.pair_is_empty) continue;
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

// Joins a normalised partial with what `rows` and `out` hold; rows.sum is the whole row's.
template <typename T, typename Partial, int kSize>
__device__ __forceinline__ void AddPartial(const Partial& partial, OnlineRows& rows,
                                           float (&out)[kSize]) {
  const int lane = threadIdx.x % 32;
  float factor[2], weight[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float lse = partial.lse[lane / 4 + half * 8];
    const float top = fmaxf(rows.top[half], lse);
    factor[half] = Exp2(rows.top[half] - top);
    weight[half] = Exp2(lse - top);
    rows.top[half] = top;
    rows.sum[half] = rows.sum[half] * factor[half] + weight[half];
  }
  RescaleRows(out, factor);
  const auto* packed = reinterpret_cast<const uint4*>(partial.out) + lane;
#pragma unroll
  for (int c = 0; c < kSize / 8; ++c) {
    const uint4 values = packed[c * 32];
    AddPair<T>(values.x, weight[0], out[8 * c], out[8 * c + 1]);
    AddPair<T>(values.y, weight[1], out[8 * c + 2], out[8 * c + 3]);
    AddPair<T>(values.z, weight[0], out[8 * c + 4], out[8 * c + 5]);
    AddPair<T>(values.w, weight[1], out[8 * c + 6], out[8 * c + 7]);
  }
  PinRegisters(out);  // the memory may be overwritten after this: what was read has arrived
}

// The (group, token, slot)s of one warp of the merger, in order: tokens warp and warp + 4.
struct PartialCursor {
  int index;  // of the group, past the end once there are no more
  int token;  // of the group
  int slot;
  int num_tokens, num_slots;  // of the group
  int first;                  // partial of the token's slot 0

  __device__ __forceinline__ void Seek(const Params& params, int group_index) {
    for (index = group_index; index < NumPairs(params.chunk); index += PairStride()) {
      const Group group(params, index);
      token = threadIdx.x % 128 / 32;
      if (group.num_slots == 0 || token >= group.num_tokens) continue;
      slot = 0;
      num_tokens = group.num_tokens;
      num_slots = group.num_slots;
      first = group.FirstPartial(params.chunk, token);
      return;
    }
  }
  __device__ __forceinline__ bool done(const Params& params) const {
    return index >= NumPairs(params.chunk);
  }
  __device__ __forceinline__ void Next(const Params& params) {
    if (++slot < num_slots) return;
    if (token + kMergerWarps < num_tokens) {
      token += kMergerWarps;
      slot = 0;
      first += kMergerWarps * params.chunk.num_kv_heads * params.chunk.num_slots;
      return;
    }
    Seek(params, index + PairStride());
  }
};

// One warp of the merger: streams its tokens' partials through a ring of its own.
template <typename T, int kDk, int kDv>
class Merger {
  using Plan = Shared<kDk, kDv>;

 public:
  __device__ Merger(Plan& shared, const Params& params)
      : shared_(shared), params_(params), warp_(threadIdx.x % 128 / 32), lane_(threadIdx.x % 32) {}

  __device__ __forceinline__ void Run() {
    ahead_.Seek(params_, FirstPair());
    for (int i = 0; i < Plan::kPartialStages; ++i) LoadNext(i);
    for (int index = FirstPair(); index < NumPairs(params_.chunk); index += PairStride()) {
      const Group group(params_, index);
      if (group.pair_is_empty || group.num_slots == 0) continue;
      Wait(SharedAddress(&shared_.merged_empty), merged_.parity ^ 1);
      for (int token = warp_; token < group.num_tokens; token += kMergerWarps) {
        MergeToken(shared_.merged[token], group.num_slots);
      }
      Arrive(SharedAddress(&shared_.merged_full));
      merged_.Advance();
    }
  }

 private:
  // Asks for the partial under the cursor, if there is one, and moves on.
  __device__ __forceinline__ void LoadNext(int stage) {
    if (ahead_.done(params_)) return;
    if (lane_ == 0) {
      const PrefillChunk& chunk = params_.chunk;
      typename Plan::Partial& target = shared_.partial[warp_][stage];
      const uint32_t full = SharedAddress(&shared_.partial_full[warp_][stage]);
      const int64_t partial = ahead_.first + ahead_.slot;
      ArriveExpectBytes(full, Plan::kPartialBytes + sizeof(target.lse));
      LoadBulk(SharedAddress(target.out),
               static_cast<const uint8_t*>(chunk.partial_out) + partial * Plan::kPartialBytes,
               Plan::kPartialBytes, full);
      LoadBulk(SharedAddress(target.lse), chunk.partial_lse + partial * kPrefillGroup,
               sizeof(target.lse), full);
    }
    ahead_.Next(params_);
  }

  __device__ __forceinline__ void MergeToken(typename Plan::Partial& merged, int num_slots) {
    float out[kDv / 2] = {};
    OnlineRows rows;
#pragma unroll 1
    for (int slot = 0; slot < num_slots; ++slot) {
      Wait(SharedAddress(&shared_.partial_full[warp_][ring_.stage]), ring_.parity);
      AddPartial<T>(shared_.partial[warp_][ring_.stage], rows, out);
      __syncwarp();  // all lanes have read
      LoadNext(ring_.stage);
      ring_.Advance();
    }
    const float inverse[2] = {1.0F / rows.sum[0], 1.0F / rows.sum[1]};
    auto* target = reinterpret_cast<uint4*>(merged.out) + lane_;
#pragma unroll
    for (int c = 0; c < kDv / 16; ++c) target[c * 32] = PackFragment<T>(&out[8 * c], inverse);
    if (lane_ % 4 == 0) {
      merged.lse[lane_ / 4] = rows.top[0] + __log2f(rows.sum[0]);
      merged.lse[lane_ / 4 + 8] = rows.top[1] + __log2f(rows.sum[1]);
    }
  }

  Plan& shared_;
  const Params& params_;
  const int warp_, lane_;
  PartialCursor ahead_;
  Ring<Plan::kPartialStages> ring_;
  Ring<1> merged_;
};

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
        self_(threadIdx.x / 128 - 2),
        warp_(threadIdx.x % 128 / 32),
        lane_(threadIdx.x % 32) {}

  __device__ __forceinline__ void Run() {
    for (int index = FirstPair(); index < NumPairs(params_.chunk); index += PairStride()) {
      const Group group(params_, index);
      if (!group.pair_is_empty) Attend(group);
    }
  }

 private:
  __device__ __forceinline__ void Attend(const Group& group) {
    const int token_of_group = self_ * kWarpTokens + warp_;
    const bool valid = token_of_group < group.num_tokens;
    const int token = valid ? group.first_token + token_of_group : group.tile_token;
    const int position = group.first_position + token_of_group;

    float out[kDv / 2];
    OnlineRows rows;
    Wait(SharedAddress(&shared_.q_full), query_.parity);
    if constexpr (kQueryInRegisters<kDk>) {
      LoadQueries<kDk, kQueryBoxBytes>(q_, SharedAddress(shared_.q),
                                       token_of_group * kPrefillGroup);
    }
    const bool masks_blocks = group.num_slots == 0 && group.own >= params_.chunk.num_selected;
    const uint64_t chosen =
        masks_blocks ? ChosenBlocks(params_.chunk, token, group.head) : ~uint64_t{0};
    AttendPages(out, rows, group.num_selected_pages(), group.last_row, [&](int i) -> Columns {
      const int block = group.SelectedBlock(i);
      if (masks_blocks && (chosen >> block & 1) == 0) return {0, 0};
      return {0, block == group.own ? position % kPrefillBlock + 1 : kPrefillBlock};
    });
    // Products have used them: what was read has arrived.
    if constexpr (kQueryInRegisters<kDk>) ReleaseQueries();
    SumRows(rows);
    if (group.num_slots > 0) {
      Wait(SharedAddress(&shared_.merged_full), merged_.parity);
      AddPartial<T>(shared_.merged[token_of_group], rows, out);
      Arrive(SharedAddress(&shared_.merged_empty));
      merged_.Advance();
    }
    KeepSelected(out, token, group.head, rows);

    rows = OnlineRows();
    AttendPages(out, rows, group.num_window_pages(), group.last_row, [&](int i) -> Columns {
      const int page_begin = (group.window_begin + i) * kPrefillBlock;
      return {position - params_.window_tokens + 1 - page_begin, position + 1 - page_begin};
    });
    if constexpr (!kQueryInRegisters<kDk>) ReleaseQueries();
    SumRows(rows);
    if (valid) Store(token, group.head, out, rows);
  }

  // Columns [begin, end) of a page that this warp's token sees; may reach past either side.
  struct Columns {
    int begin, end;
  };

  // out = softmax(Q K^T) V without the division, over the next num_pages >= 1 pages of the rings.
  // visible(i) says what is seen of page i; the last page is the own block. A page's exponentials
  // run while the page before is multiplied by V.
  template <typename Visible>
  __device__ __forceinline__ void AttendPages(float (&out)[kDv / 2], OnlineRows& rows,
                                              int num_pages, int last_row, Visible visible) {
    float scores[kPageScores], factor[2];
    uint32_t weights[kPageRows / 16][4];
    IssuePageScores(scores);
    WaitWgmma<0>();
    WeighPage(scores, rows, factor, visible(0));
    PackWeights<T>(scores, weights);
#pragma unroll 1
    for (int i = 1; i < num_pages; ++i) {
      IssuePageScores(scores);
      Wait(SharedAddress(&shared_.v_full[v_.stage]), v_.parity);
      IssueValues<T, kDv>(out, weights, SharedAddress(shared_.v[v_.stage]), i > 1);
      WaitWgmma<1>();
      WeighPage(scores, rows, factor, visible(i));
      WaitWgmma<0>();
      ReleaseValues(out);
      RescaleRows(out, factor);
      PackWeights<T>(scores, weights);
    }
    Wait(SharedAddress(&shared_.v_full[v_.stage]), v_.parity);
    if (last_row < kPrefillBlock - 1) {
      ClearRowsFrom<kDv, kPageRows>(shared_.v[v_.stage], last_row + 1, 1 + self_);
    }
    IssueValues<T, kDv>(out, weights, SharedAddress(shared_.v[v_.stage]), num_pages > 1);
    WaitWgmma<0>();
    ReleaseValues(out);
  }

  __device__ __forceinline__ void ReleaseQueries() {
    __syncwarp();
    if (lane_ == 0) Arrive(SharedAddress(&shared_.q_empty));
    query_.Advance();
  }

  __device__ __forceinline__ void IssuePageScores(float (&scores)[kPageScores]) {
    Wait(SharedAddress(&shared_.k_full[k_.stage]), k_.parity);
    const uint32_t k = SharedAddress(shared_.k[k_.stage]);
    if constexpr (kQueryInRegisters<kDk>) {
      IssueScores<T, kDk>(scores, q_, k);
    } else {
      IssueScores<T, kDk, kQueryBoxBytes>(
          scores, SharedAddress(shared_.q) + self_ * kConsumerQueryBytes, k);
    }
  }

  // Takes finished scores: frees K, masks and exponentiates.
  __device__ __forceinline__ void WeighPage(float (&scores)[kPageScores], OnlineRows& rows,
                                            float (&factor)[2], Columns columns) {
    PinRegisters(scores);
    ReleasePage(shared_.k_empty[k_.stage]);
    k_.Advance();
    if (columns.begin > 0 || columns.end < kPrefillBlock) {
      MaskColumns(scores, columns.begin, columns.end);
    }
    OnlineSoftmaxStep(scores, params_.scale, rows, factor);
  }

  // Both blocks' producers write to both blocks.
  __device__ __forceinline__ void ReleasePage(uint64_t& empty) const {
    if (lane_ < kClusterBlocks) ArrivePeer(SharedAddress(&empty), lane_);
  }

  __device__ __forceinline__ void ReleaseValues(float (&out)[kDv / 2]) {
    PinRegisters(out);
    ReleasePage(shared_.v_empty[v_.stage]);
    v_.Advance();
  }

  // From each thread's part of a row's sum to the row's.
  static __device__ __forceinline__ void SumRows(OnlineRows& rows) {
    rows.sum[0] = QuadSum(rows.sum[0]);
    rows.sum[1] = QuadSum(rows.sum[1]);
  }

  // Row of [T, H]: this thread's lower or upper one.
  __device__ __forceinline__ int64_t Row(int token, int head, int half) const {
    return (int64_t{token} * params_.chunk.num_kv_heads + head) * kPrefillGroup + lane_ / 4 +
           half * 8;
  }
  __device__ __forceinline__ float Gate(int64_t row, int branch) const {
    return Sigmoid(params_.gates[row * 3 + branch]);
  }

  // Normalises and gates the selected branch, and puts it aside where only this thread looks.
  __device__ __forceinline__ void KeepSelected(const float (&out)[kDv / 2], int token, int head,
                                               const OnlineRows& rows) {
    const float factor[2] = {Gate(Row(token, head, 0), 1) / rows.sum[0],
                             Gate(Row(token, head, 1), 1) / rows.sum[1]};
#pragma unroll
    for (int c = 0; c < kDv / 16; ++c) {
      shared_.selected[self_][c][threadIdx.x % 128] = PackFragment<T>(&out[8 * c], factor);
    }
  }

  __device__ __forceinline__ void Store(int token, int head, const float (&win)[kDv / 2],
                                        const OnlineRows& rows) const {
    float cmp_gate[2], win_factor[2];
    const uint32_t* cmp[2];
    uint32_t* out[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = Row(token, head, half);
      const int64_t first = (row * kDv + lane_ % 4 * 2) / 2;
      cmp_gate[half] = Gate(row, 0);
      win_factor[half] = Gate(row, 2) / rows.sum[half];
      cmp[half] = static_cast<const uint32_t*>(params_.cmp) + first;
      out[half] = static_cast<uint32_t*>(params_.out) + first;
    }
    // Loads of a batch of fragments are under way together.
    constexpr int kBatch = 4;
#pragma unroll
    for (int first = 0; first < kDv / 16; first += kBatch) {
      uint32_t pairs[kBatch][4];
#pragma unroll
      for (int c = 0; c < kBatch; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[c][i] = cmp[i % 2][((first + c) * 2 + i / 2) * 4];
      }
#pragma unroll
      for (int c = 0; c < kBatch; ++c) {
        const uint4 kept = shared_.selected[self_][first + c][threadIdx.x % 128];
        const uint32_t selected[4] = {kept.x, kept.y, kept.z, kept.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* w = &win[8 * (first + c) + 2 * i];
          float low = w[0] * win_factor[i % 2], high = w[1] * win_factor[i % 2];
          AddPair<T>(selected[i], 1.0F, low, high);
          AddPair<T>(pairs[c][i], cmp_gate[i % 2], low, high);
          out[i % 2][((first + c) * 2 + i / 2) * 4] = PackPair<T>(low, high);
        }
      }
    }
  }

  Plan& shared_;
  const Params& params_;
  const int self_, warp_, lane_;
  uint32_t q_[kDk / 16][4];
  Ring<1> query_, merged_;
  Ring<Plan::kPageStages> k_, v_;
};

template <int kDk, int kDv>
__device__ void InitBarriers(Shared<kDk, kDv>& shared) {
  constexpr int kConsumerWarps = kConsumers * 4;
  const auto init = [](uint64_t& full, uint64_t& empty, int num_consumer_warps) {
    InitBarrier(SharedAddress(&full), 1);
    InitBarrier(SharedAddress(&empty), num_consumer_warps);
  };
  init(shared.q_full, shared.q_empty, kConsumerWarps);
  // Every thread that wrote or read.
  InitBarrier(SharedAddress(&shared.merged_full), kMergerWarps * 32);
  InitBarrier(SharedAddress(&shared.merged_empty), kConsumerWarps * 32);
  for (int s = 0; s < Shared<kDk, kDv>::kPageStages; ++s) {
    init(shared.k_full[s], shared.k_empty[s], kClusterBlocks * kConsumerWarps);
    init(shared.v_full[s], shared.v_empty[s], kClusterBlocks * kConsumerWarps);
  }
  for (auto& warp : shared.partial_full) {
    for (uint64_t& full : warp) InitBarrier(SharedAddress(&full), 1);
  }
  FenceBarrierInit();
}

// Grid: one block per multiprocessor, in clusters of two.
template <typename T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    MergeBranches(const __grid_constant__ Maps maps, const __grid_constant__ Params params) {
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<kDk, kDv>*>(AlignShared(memory));
  if (threadIdx.x == 0) InitBarriers(shared);
  __syncwarp();
  ClusterArrive();  // both blocks' barriers are ready
  ClusterWait();
  if (threadIdx.x < 128) {
    ShrinkRegisters<kProducerRegisters>();
    if (threadIdx.x == 0) ProducePages(shared, maps, params);
  } else if (threadIdx.x < 256) {
    ShrinkRegisters<kMergerRegisters>();
    Merger<T, kDk, kDv>(shared, params).Run();
  } else {
    GrowRegisters<kConsumerRegisters>();
    Consumer<T, kDk, kDv>(shared, params).Run();
  }
  __syncwarp();
  ClusterArrive();  // no block leaves while the other writes to its memory
  ClusterWait();
}

template <typename T, int kDk, int kDv>
void Launch(const PrefillBranchesArgs& args, const PrefillChunk& chunk, int num_sms,
            cudaStream_t stream) {
  const Maps maps{.q = MapQueries(args.q, kPrefillGroup, kGroupTokens),
                  .sel_k = MapRows(args.sel.k, kLoadRows),
                  .sel_v = MapRows(args.sel.v, kLoadRows),
                  .win_k = MapRows(args.win.k, kLoadRows),
                  .win_v = MapRows(args.win.v, kLoadRows)};
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
  LaunchPersistent({.num_blocks = num_sms / kClusterBlocks * kClusterBlocks,
                    .cluster_blocks = kClusterBlocks,
                    .num_threads = kThreads,
                    .shared_bytes = sizeof(Shared<kDk, kDv>)},
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
