#pragma once
// A prefill step on random caches, for checks and timings of the Hopper prefill kernels.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/cuda/gpu_bench.cuh"
#include "kernels/cuda/sm90/prefill_choose.h"

namespace nsa {

inline int NumSms() {
  int num_sms = 0;
  CUDA_OK(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, 0));
  return num_sms;
}

struct Chunk {
  int64_t first_position, num_tokens;
};

struct Case {
  std::string name;
  NsaShape shape;
  std::vector<Chunk> chunks;  // one per sequence
  int64_t num_kv_heads = 4, group_size = 16, d_k = 128, d_v = 128;
  bool bf16 = true;
  float sharpness = 1;  // multiplies scores
  bool equal_keys = false;
};

__device__ float Noise(uint64_t i, uint32_t seed) {
  uint64_t x = i * 0x9e3779b97f4a7c15ULL + seed * 0xda942042e4dd58b5ULL + 1;
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 29;
    sum += static_cast<float>(x & 0xffffff) / 16777216.0f - 0.5f;
  }
  return sum * 1.7320508f;
}

template <typename T>
__global__ void FillKernel(T* data, int64_t count, uint32_t seed, int64_t period) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    data[i] = T(Noise(i % period, seed));
  }
}

// A step: caches, queries and outputs of a case.
struct Step {
  explicit Step(const Case& c);
  CompressedAttentionArgs Compressed() const;
  SelectArgs Select() const;
  SparseAttentionExtent Extent() const;

  const Case& c;
  int64_t num_tokens = 0, max_pages = 0;
  std::vector<int32_t> sequence, position, tiles;
  std::unique_ptr<Buffer> d_sequence, d_position, d_tiles, d_table, q, k, v, out, lse, blocks,
      copies, scratch;
  int64_t num_pages = 0;
};

inline DType CaseDType(const Case& c) { return c.bf16 ? DType::kBF16 : DType::kF16; }

inline void Fill(const Buffer& buffer, bool bf16, int64_t count, uint32_t seed, int64_t period) {
  if (bf16) {
    FillKernel<<<1024, 256>>>(static_cast<__nv_bfloat16*>(buffer.get()), count, seed, period);
  } else {
    FillKernel<<<1024, 256>>>(static_cast<__half*>(buffer.get()), count, seed, period);
  }
  CUDA_OK(cudaGetLastError());
}

inline Step::Step(const Case& config) : c(config) {
  const int64_t block = c.shape.block_tokens;
  const auto num_seqs = static_cast<int64_t>(c.chunks.size());
  for (int64_t s = 0; s < num_seqs; ++s) {
    const Chunk& chunk = c.chunks[s];
    const int64_t end = chunk.first_position + chunk.num_tokens;
    max_pages = std::max(max_pages, (end + block - 1) / block);
    for (int64_t p = chunk.first_position; p < end;) {
      const int64_t n = std::min(end, (p / kTileTokens + 1) * kTileTokens) - p;
      for (const int64_t x : {s, num_tokens, n, p}) tiles.push_back(static_cast<int32_t>(x));
      for (int64_t i = 0; i < n; ++i) {
        sequence.push_back(static_cast<int32_t>(s));
        position.push_back(static_cast<int32_t>(p + i));
      }
      num_tokens += n;
      p += n;
    }
  }
  num_pages = num_seqs * max_pages;
  std::vector<int32_t> table(num_pages);
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937(7));
  const auto make = [](std::unique_ptr<Buffer>& buffer, int64_t bytes) {
    buffer = std::make_unique<Buffer>(bytes);
  };
  const auto upload = [&](std::unique_ptr<Buffer>& buffer, const std::vector<int32_t>& values) {
    make(buffer, static_cast<int64_t>(values.size() * 4));
    buffer->Write(values);
  };
  upload(d_sequence, sequence);
  upload(d_position, position);
  upload(d_tiles, tiles);
  upload(d_table, table);
  const int64_t num_heads = c.num_kv_heads * c.group_size;
  const int64_t rows = num_pages * c.num_kv_heads * c.shape.rows_per_page();
  make(q, num_tokens * num_heads * c.d_k * 2);
  make(k, rows * c.d_k * 2);
  make(v, rows * c.d_v * 2);
  make(out, num_tokens * num_heads * c.d_v * 2);
  make(lse, num_tokens * num_heads * 4);
  make(blocks, num_tokens * c.num_kv_heads * c.shape.num_selected * 4);
  make(copies, cuda::PrefillRowsBytes(Extent()));
  make(scratch, cuda::PrefillBlockSumsBytes(Extent()));
  const int64_t all = int64_t{1} << 62;
  Fill(*q, c.bf16, num_tokens * num_heads * c.d_k, 1, all);
  Fill(*k, c.bf16, rows * c.d_k, 2, c.equal_keys ? c.d_k : all);
  Fill(*v, c.bf16, rows * c.d_v, 3, all);
}

inline SparseAttentionExtent Step::Extent() const {
  return {.shape = c.shape,
          .num_tokens = num_tokens,
          .num_seqs = static_cast<int64_t>(c.chunks.size()),
          .max_pages = max_pages,
          .num_heads = c.num_kv_heads * c.group_size,
          .num_kv_heads = c.num_kv_heads,
          .d_k = c.d_k,
          .d_v = c.d_v,
          .cache_dtype = CaseDType(c)};
}

inline CompressedAttentionArgs Step::Compressed() const {
  const DType dtype = CaseDType(c);
  const int64_t num_heads = c.num_kv_heads * c.group_size;
  const int64_t page_rows = c.shape.rows_per_page();
  const auto num_seqs = static_cast<int64_t>(c.chunks.size());
  return {.shape = c.shape,
          .tokens = {.sequence = TensorView(d_sequence->get(), DType::kI32, {num_tokens}),
                     .position = TensorView(d_position->get(), DType::kI32, {num_tokens}),
                     .num_decode_tokens = 0,
                     .tiles = TensorView(d_tiles->get(), DType::kI32,
                                         {static_cast<int64_t>(tiles.size() / 4), 4})},
          .q = TensorView(q->get(), dtype, {num_tokens, num_heads, c.d_k}),
          .rows = {.k = TensorView(k->get(), dtype, {num_pages, c.num_kv_heads, page_rows, c.d_k}),
                   .v = TensorView(v->get(), dtype, {num_pages, c.num_kv_heads, page_rows, c.d_v}),
                   .table = TensorView(d_table->get(), DType::kI32, {num_seqs, max_pages})},
          .out = TensorView(out->get(), dtype, {num_tokens, num_heads, c.d_v}),
          .lse = TensorView(lse->get(), DType::kF32, {num_tokens, num_heads}),
          .softmax_scale = c.sharpness / std::sqrt(static_cast<float>(c.d_k))};
}

inline SelectArgs Step::Select() const {
  const CompressedAttentionArgs a = Compressed();
  return {.shape = a.shape,
          .tokens = a.tokens,
          .q = a.q,
          .rows = a.rows,
          .lse = a.lse,
          .blocks = TensorView(blocks->get(), DType::kI32,
                               {num_tokens, c.num_kv_heads, c.shape.num_selected}),
          .scratch = TensorView(),
          .softmax_scale = a.softmax_scale};
}

}  // namespace nsa
