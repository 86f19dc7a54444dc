// A cluster of 16 blocks serves one decode token and KV head. The context's pages are cut into 16
// shares by the token's position alone; block r streams share r through a ring of pages that the
// copy engine fills. Each of 4 warps attends 16 rows of every page with a softmax of its own: the
// group's heads, up to 16, are the M side of the tensor-core tiles. The results meet in shared
// memory, then across the cluster, where block r finishes head r. No scratch memory, a grid that
// depends on the number of tokens only, and a token's bits do not depend on the batch.
//
// Bound by memory: (d_k + d_v) * 2 bytes per cached row and KV head.

#include "base/check.h"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/ptx/cluster.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/ptx/tensor_map.h"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/sm90/attend_page.cuh"
#include "kernels/cuda/sm90/dense_attention.h"
#include "kernels/cuda/sm90/prefill_kernel.cuh"

namespace nsa::cuda {
namespace {

constexpr int kShares = 16;  // blocks of a cluster
constexpr int kHeads = 16;   // rows of a tile
constexpr int kWarps = 4;
constexpr int kThreads = 32 * (1 + kWarps);  // the last warp produces
constexpr int kWarpRows = kPageRows / kWarps;
// Few clusters: deep rings, as one or two blocks per multiprocessor. Many: shallow ones and another
// block, so that the start and end of short contexts hide better. Both compute the same bits.
constexpr int kDeepStages = 3;
constexpr int kShallowStages = 2;
template <int kDk>
constexpr int64_t kManyClusters = kDk <= 128 ? 64 : 16;
constexpr int kRowBytes = kBoxColumns * 2;
constexpr float kLn2 = 0.69314718055994530942F;

// Unnormalised results and the online softmax's state, of warps and then of the block.
template <int kDv>
struct Results {
  float out[kWarps][kHeads][kDv];
  float top[kWarps][kHeads], sum[kWarps][kHeads];
  float block_out[kHeads][kDv];
  float2 block_top_sum[kHeads];
};

template <int kDk, int kDv, int kStages>
struct Shared {
  static constexpr int kKeyBytes = kDk / kBoxColumns * kPageBoxBytes;
  static constexpr int kValueBytes = kDv / kBoxColumns * kPageBoxBytes;
  struct Stage {
    alignas(1024) uint8_t k[kKeyBytes];
    alignas(1024) uint8_t v[kValueBytes];
  };
  union {
    Stage stages[kStages];
    Results<kDv> results;  // once all pages are consumed
  };
  uint64_t full[kStages], empty[kStages];
};

struct Maps {
  CUtensorMap k, v;  // [pages * K * 64, d] in boxes of 64 columns, 64 rows
};

struct Params {
  const void* q;  // [T, H, d_k]
  const int32_t* sequence;
  const int32_t* position;
  const int32_t* table;  // [num_seqs, table_width]
  void* out;             // [T, H, d_v]
  float* lse;            // [T, H]
  int32_t num_kv_heads, group_size, table_width;
  float scale;  // softmax scale * log2(e)
};

// The pages [begin, end) of one block of the cluster.
struct Share {
  int begin, end;
  __device__ Share(int position, int rank) {
    const int num_pages = position / kPageRows + 1;
    begin = num_pages * rank / kShares;
    end = num_pages * (rank + 1) / kShares;
  }
};

// A warp: every lane knows the numbers of some pages, one lane brings them.
template <int kDk, int kDv, int kStages>
__device__ void Produce(Shared<kDk, kDv, kStages>& shared, const Maps& maps, const Params& params,
                        const Share& share, int sequence, int head) {
  using Plan = Shared<kDk, kDv, kStages>;
  const int32_t* table = params.table + int64_t{sequence} * params.table_width;
  const int lane = threadIdx.x % 32;
  const auto load_pages = [&](int first) {
    return first + lane < share.end ? table[first + lane] : 0;
  };
  int pages = load_pages(share.begin), next_pages = load_pages(share.begin + 32);
  Ring<kStages> ring;
  for (int i = 0; i < share.end - share.begin; ++i, ring.Advance()) {
    if (i > 0 && i % 32 == 0) {
      pages = next_pages;
      next_pages = load_pages(share.begin + i + 32);
    }
    const int page = __shfl_sync(kAllLanes, pages, i % 32);
    if (lane != 0) continue;
    const int row = (page * params.num_kv_heads + head) * kPageRows;
    auto& stage = shared.stages[ring.stage];
    const uint32_t full = SharedAddress(&shared.full[ring.stage]);
    Wait(SharedAddress(&shared.empty[ring.stage]), ring.parity ^ 1);
    ArriveExpectBytes(full, Plan::kKeyBytes + Plan::kValueBytes);
    for (int box = 0; box < kDk / kBoxColumns; ++box) {
      LoadBox2(SharedAddress(stage.k) + box * kPageBoxBytes, &maps.k, full, box * kBoxColumns, row);
    }
    for (int box = 0; box < kDv / kBoxColumns; ++box) {
      LoadBox2(SharedAddress(stage.v) + box * kPageBoxBytes, &maps.v, full, box * kBoxColumns, row);
    }
  }
}

// Address of 16-byte chunk `chunk` of a row of a page, over all boxes.
__device__ __forceinline__ uint32_t ChunkAddress(uint32_t page, int row, int chunk) {
  constexpr int kChunks = kRowBytes / 16;
  return page + chunk / kChunks * kPageBoxBytes + row * kRowBytes +
         ((chunk % kChunks) ^ (row % 8)) * 16;
}

// One warp's part of a share: rows [16 * warp, + 16) of every page.
template <typename T, int kDk, int kDv>
class Attender {
 public:
  __device__ __forceinline__ Attender(const Params& params, int token, int head)
      : lane_(threadIdx.x % 32) {
    const int64_t row =
        (int64_t{token} * params.num_kv_heads + head) * params.group_size + lane_ / 4;
    const auto* q = static_cast<const uint32_t*>(params.q) + (row * kDk + lane_ % 4 * 2) / 2;
    const bool has_low = lane_ / 4 < params.group_size,
               has_high = lane_ / 4 + 8 < params.group_size;
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      q_[step][0] = has_low ? q[step * 8] : 0;
      q_[step][1] = has_high ? q[step * 8 + 4 * kDk] : 0;
      q_[step][2] = has_low ? q[step * 8 + 4] : 0;
      q_[step][3] = has_high ? q[step * 8 + 4 * kDk + 4] : 0;
    }
  }

  // `end`: rows of the page below it are visible, others may never have been written.
  __device__ __forceinline__ void Attend(uint32_t k, uint32_t v, int first_row, int end,
                                         float scale) {
    float scores[8] = {};
    float(&low)[4] = *reinterpret_cast<float(*)[4]>(scores);
    float(&high)[4] = *reinterpret_cast<float(*)[4]>(scores + 4);
#pragma unroll
    for (int step = 0; step < kDk / 16; ++step) {
      uint32_t b[4];
      LoadMatrix4(
          b, ChunkAddress(k, first_row + lane_ / 16 * 8 + lane_ % 8, step * 2 + lane_ / 8 % 2));
      Mma16x8x16<T>(low, q_[step], b[0], b[1]);
      Mma16x8x16<T>(high, q_[step], b[2], b[3]);
    }
    if (first_row + kWarpRows > end) MaskColumns(scores, 0, end - first_row);

    float factor[2];
    OnlineSoftmaxStep(scores, scale, rows_, factor);
    RescaleRows(out_, factor);
    uint32_t weights[1][4];
    PackWeights<T>(scores, weights);
    const uint32_t visible = VisiblePairs(first_row, end);
#pragma unroll
    for (int step = 0; step < kDv / 16; ++step) {
      uint32_t b[4];
      LoadMatrix4Transposed(
          b, ChunkAddress(v, first_row + lane_ / 8 % 2 * 8 + lane_ % 8, step * 2 + lane_ / 16));
      if (visible != 0xf) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t pair = visible >> (i % 2 * 2);
          b[i] &= (pair & 1 ? 0xffffu : 0) | (pair & 2 ? 0xffff0000u : 0);
        }
      }
      Mma16x8x16<T>(*reinterpret_cast<float(*)[4]>(&out_[8 * step]), weights[0], b[0], b[1]);
      Mma16x8x16<T>(*reinterpret_cast<float(*)[4]>(&out_[8 * step + 4]), weights[0], b[2], b[3]);
    }
  }

  __device__ __forceinline__ void Store(Results<kDv>& results, int warp) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = lane_ / 4 + half * 8;
      const float sum = QuadSum(rows_.sum[half]);
      if (lane_ % 4 == 0) {
        results.top[warp][head] = rows_.top[half];
        results.sum[warp][head] = sum;
      }
#pragma unroll
      for (int i = 0; i < kDv / 8; ++i) {
        auto* pair = reinterpret_cast<float2*>(&results.out[warp][head][i * 8 + lane_ % 4 * 2]);
        *pair = {out_[4 * i + 2 * half], out_[4 * i + 2 * half + 1]};
      }
    }
  }

 private:
  // Which of this thread's four rows of V in a right operand are visible, a bit each.
  __device__ __forceinline__ uint32_t VisiblePairs(int first_row, int end) const {
    if (first_row + kWarpRows <= end) return 0xf;
    const int left = end - first_row - lane_ % 4 * 2;
    return (left > 0 ? 1 : 0) | (left > 1 ? 2 : 0) | (left > 8 ? 4 : 0) | (left > 9 ? 8 : 0);
  }

  const int lane_;
  uint32_t q_[kDk / 16][4];
  float out_[kDv / 2] = {};
  OnlineRows rows_;
};

// Weight of a partial softmax with maximum `top` in one with maximum `all`.
__device__ __forceinline__ float PartWeight(float top, float all) {
  return top == kNegativeInfinity ? 0.0F : Exp2(top - all);
}

// Sums the warps' results. All compute threads, a column each.
template <int kDv>
__device__ __forceinline__ void SumWarps(Results<kDv>& results) {
  const int column = threadIdx.x;
#pragma unroll 4
  for (int head = 0; head < kHeads; ++head) {
    float top = kNegativeInfinity, sum = 0, out = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) top = fmaxf(top, results.top[warp][head]);
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      const float weight = PartWeight(results.top[warp][head], top);
      sum += weight * results.sum[warp][head];
      if (column < kDv) out += weight * results.out[warp][head][column];
    }
    if (column < kDv) results.block_out[head][column] = out;
    if (column == 0) results.block_top_sum[head] = {top, sum};
  }
}

// Sums the cluster's results of one head, and stores. All compute threads, a column each.
template <typename T, int kDv>
__device__ __forceinline__ void SumShares(Results<kDv>& results, const Params& params, int token,
                                          int head_of_group, int kv_head) {
  const int column = threadIdx.x;
  const uint32_t top_sum = SharedAddress(&results.block_top_sum[head_of_group]);
  const uint32_t values = SharedAddress(&results.block_out[head_of_group][column % kDv]);
  float2 part[kShares];
  float value[kShares];
#pragma unroll
  for (int r = 0; r < kShares; ++r) part[r] = LoadPeer2(PeerAddress(top_sum, r));
#pragma unroll
  for (int r = 0; r < kShares; ++r) value[r] = LoadPeer(PeerAddress(values, r));
  float top = kNegativeInfinity, sum = 0, out = 0;
#pragma unroll
  for (int r = 0; r < kShares; ++r) top = fmaxf(top, part[r].x);
#pragma unroll
  for (int r = 0; r < kShares; ++r) {
    const float weight = PartWeight(part[r].x, top);
    sum += weight * part[r].y;
    out += weight * value[r];
  }
  const int64_t row =
      (int64_t{token} * params.num_kv_heads + kv_head) * params.group_size + head_of_group;
  if (column < kDv) static_cast<T*>(params.out)[row * kDv + column] = T(out / sum);
  if (column == 0) params.lse[row] = (top + __log2f(sum)) * kLn2;
}

// Padding: zeros, and the log-sum-exp of nothing.
template <typename T, int kDv>
__device__ void StoreNothing(const Params& params, int token, int head_of_group, int kv_head) {
  const int64_t row =
      (int64_t{token} * params.num_kv_heads + kv_head) * params.group_size + head_of_group;
  for (int c = threadIdx.x; c < kDv; c += kThreads) {
    static_cast<T*>(params.out)[row * kDv + c] = T(0.0F);
  }
  if (threadIdx.x == 0) params.lse[row] = kNegativeInfinity;
}

// Grid (shares, KV heads, tokens), clusters of kShares blocks.
template <typename T, int kDk, int kDv, int kStages>
__global__ void __launch_bounds__(kThreads, kStages == kShallowStages && kDk <= 128 ? 3 : 2)
    DenseDecode(const __grid_constant__ Maps maps, const __grid_constant__ Params params) {
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<kDk, kDv, kStages>*>(AlignShared(memory));
  const int rank = blockIdx.x, head = blockIdx.y, token = blockIdx.z;
  const int position = params.position[token], sequence = params.sequence[token];
  if (position < 0) {  // the whole cluster
    if (rank < params.group_size) StoreNothing<T, kDv>(params, token, rank, head);
    return;
  }
  const Share share(position, rank);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      InitBarrier(SharedAddress(&shared.full[s]), 1);
      InitBarrier(SharedAddress(&shared.empty[s]), kWarps * kWarpArrivals);
    }
    FenceBarrierInit();
  }
  __syncthreads();
  if (warp == kWarps) {
    Produce(shared, maps, params, share, sequence, head);
    __syncwarp();
    __syncthreads();  // (a)
    __syncthreads();  // (b)
  } else {
    Attender<T, kDk, kDv> attender(params, token, head);
    Ring<kStages> ring;
    for (int page = share.begin; page < share.end; ++page, ring.Advance()) {
      const auto& stage = shared.stages[ring.stage];
      Wait(SharedAddress(&shared.full[ring.stage]), ring.parity);
      const int end = min(kPageRows, position + 1 - page * kPageRows);
      attender.Attend(SharedAddress(stage.k), SharedAddress(stage.v), warp * kWarpRows, end,
                      params.scale);
      __syncwarp();
      ArriveForWarp(lane, SharedAddress(&shared.empty[ring.stage]));
    }
    __syncthreads();  // (a) all pages are consumed: their memory becomes results
    attender.Store(shared.results, warp);
    __syncthreads();  // (b)
    SumWarps(shared.results);
  }
  ClusterArrive();
  ClusterWait();
  if (warp < kWarps && rank < params.group_size) {
    SumShares<T, kDv>(shared.results, params, token, rank, head);
  }
  ClusterArrive();  // no block leaves while others read its memory
  ClusterWait();
}

template <typename T, int kDk, int kDv, int kStages>
void Launch(const DenseAttentionArgs& args, int64_t num_tokens, cudaStream_t stream) {
  const Maps maps{.k = MapRows(args.kv.k), .v = MapRows(args.kv.v)};
  const auto num_kv_heads = static_cast<int32_t>(args.kv.num_kv_heads());
  const Params params{.q = args.q.raw(),
                      .sequence = args.tokens.sequence.data<int32_t>(),
                      .position = args.tokens.position.data<int32_t>(),
                      .table = args.kv.table.data<int32_t>(),
                      .out = args.out.raw(),
                      .lse = args.lse.data<float>(),
                      .num_kv_heads = num_kv_heads,
                      .group_size = static_cast<int32_t>(args.q.dim(1) / num_kv_heads),
                      .table_width = static_cast<int32_t>(args.kv.table.dim(1)),
                      .scale = args.softmax_scale * kLog2E};
  const auto kernel = DenseDecode<T, kDk, kDv, kStages>;
  constexpr int kBytes = sizeof(Shared<kDk, kDv, kStages>) + kSharedAlignment;
  NSA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) ==
                cudaSuccess &&
            cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) ==
                cudaSuccess);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kShares, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(kShares, num_kv_heads, static_cast<unsigned>(num_tokens));
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, maps, params);
  NSA_CHECK(error == cudaSuccess) << cudaGetErrorString(error);
}

}  // namespace

bool CanRunDenseDecode(const DenseAttentionArgs& args) {
  const DType dtype = args.q.dtype();
  return HasInstance(dtype, args.kv.d_k(), args.kv.d_v()) && args.out.dtype() == dtype &&
         args.kv.k.dtype() == dtype && args.q.dim(1) <= args.kv.num_kv_heads() * kHeads &&
         args.kv.page_rows() == kPageRows;
}

void LaunchDenseDecode(const DenseAttentionArgs& args, int64_t num_tokens, cudaStream_t stream) {
  if (num_tokens == 0) return;
  DispatchHopper(args.q, args.out.dim(2), [&]<typename T, int kDk, int kDv>() {
    if (num_tokens * args.kv.num_kv_heads() >= kManyClusters<kDk>) {
      Launch<T, kDk, kDv, kShallowStages>(args, num_tokens, stream);
    } else {
      Launch<T, kDk, kDv, kDeepStages>(args, num_tokens, stream);
    }
  });
}

}  // namespace nsa::cuda
