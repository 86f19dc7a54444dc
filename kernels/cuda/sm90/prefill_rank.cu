// Chooses the blocks of a step's tokens from their importances (prefill_compressed.cu). A thread
// block has a tile and a KV head, a warp takes every kWarps-th token. Bound by latency: a warp
// reads a token's importances twice, the second time from its L1.

#include "base/check.h"
#include "kernels/cuda/sm90/prefill_rank.h"
#include "kernels/cuda/sm90/prefill_rank_best.cuh"

namespace nsa::cuda {
namespace {

constexpr int kWarps = 16;

struct Params {
  const int4* tiles;  // sequence, first packed token, tokens, first position
  const float* importance;
  int64_t importance_stride;
  SelectRule rule;
  int32_t* blocks;  // [T, num_kv_heads, num_selected]
};

__global__ void __launch_bounds__(kWarps * 32) PrefillRankKernel(const Params p) {
  __shared__ __align__(16) RankKey lists[kWarps][kMaxCandidates];
  const int warp = threadIdx.x / 32;
  const int64_t head = blockIdx.y, num_heads = gridDim.y;
  const int4 tile = p.tiles[blockIdx.x];
  for (int token = warp; token < tile.z; token += kWarps) {
    const int64_t place = int64_t{blockIdx.x} * kTileTokens + token;
    WriteChoice(p.rule, tile.w + token,
                p.importance + (place * num_heads + head) * p.importance_stride, lists[warp],
                p.blocks + ((tile.y + token) * num_heads + head) * p.rule.num_selected);
  }
}

}  // namespace

void LaunchPrefillRank(const SelectArgs& args, const PrefillImportance& importance,
                       cudaStream_t stream) {
  if (args.tokens.tiles.dim(0) == 0) return;
  NSA_CHECK_LE(args.shape.num_selected, kMaxPrefillSelected);
  NSA_CHECK_LE(args.tokens.tiles.dim(0), importance.max_tiles);
  const Params params{.tiles = static_cast<const int4*>(args.tokens.tiles.raw()),
                      .importance = importance.data,
                      .importance_stride = importance.stride,
                      .rule = {.block_tokens = static_cast<int32_t>(args.shape.block_tokens),
                               .num_selected = static_cast<int32_t>(args.shape.num_selected),
                               .num_initial = static_cast<int32_t>(args.shape.num_initial),
                               .num_local = static_cast<int32_t>(args.shape.num_local)},
                      .blocks = args.blocks.data<int32_t>()};
  const dim3 grid(static_cast<unsigned>(args.tokens.tiles.dim(0)),
                  static_cast<unsigned>(args.rows.num_kv_heads()));
  PrefillRankKernel<<<grid, kWarps * 32, 0, stream>>>(params);
  NSA_CHECK(cudaGetLastError() == cudaSuccess) << "prefill of selection";
}

}  // namespace nsa::cuda
