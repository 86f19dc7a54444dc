#pragma once
// CompressedAttention and the importance of blocks, written plainly in fp32: what the prefill
// kernels are checked against. A thread block per (token, KV head).

#include <cuda_runtime.h>

#include <cstdint>

namespace nsa {

struct Reference {
  const void *q, *k, *v;
  const int32_t *sequence, *position, *table;
  float *out, *lse, *importance, *scores;  // scores [token, head, max_rows]
  int max_pages, num_kv_heads, group_size, d_k, d_v, max_rows;
  int span_tokens, span_stride, block_tokens, page_rows, offset;
  float scale;
};

template <typename T>
__global__ void ReferenceKernel(Reference r) {
  const int64_t token = blockIdx.x;
  const int g = blockIdx.y, s = r.position[token] + 1;
  const int num_rows = s < r.span_tokens ? 0 : (s - r.span_tokens) / r.span_stride + 1;
  const auto row_of = [&](int i) {
    const int u = i + r.offset;
    const int64_t page =
        r.table[static_cast<int64_t>(r.sequence[token]) * r.max_pages + u / r.page_rows];
    return (page * r.num_kv_heads + g) * r.page_rows + u % r.page_rows;
  };
  for (int h = 0; h < r.group_size; ++h) {
    const int64_t head = (token * r.num_kv_heads + g) * r.group_size + h;
    float* scores = r.scores + head * r.max_rows;
    for (int i = threadIdx.x; i < num_rows; i += blockDim.x) {
      const T* k = static_cast<const T*>(r.k) + row_of(i) * r.d_k;
      float sum = 0;
      for (int d = 0; d < r.d_k; ++d) {
        sum += float(static_cast<const T*>(r.q)[head * r.d_k + d]) * float(k[d]);
      }
      scores[i] = sum * r.scale;
    }
    __syncthreads();
    float max = -INFINITY, sum = 0;
    for (int i = 0; i < num_rows; ++i) max = fmaxf(max, scores[i]);
    for (int i = 0; i < num_rows; ++i) sum += expf(scores[i] - max);
    if (threadIdx.x == 0) r.lse[head] = num_rows > 0 ? max + logf(sum) : -INFINITY;
    for (int d = threadIdx.x; d < r.d_v; d += blockDim.x) {
      float o = 0;
      for (int i = 0; i < num_rows; ++i) {
        o += expf(scores[i] - max) * float(static_cast<const T*>(r.v)[row_of(i) * r.d_v + d]);
      }
      r.out[head * r.d_v + d] = num_rows > 0 ? o / sum : 0;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < num_rows; i += blockDim.x) {
      scores[i] = expf(scores[i] - max) / sum;
    }
  }
  __syncthreads();
  const int e = r.offset + 1;
  for (int j = threadIdx.x; j <= (s - 1) / r.block_tokens; j += blockDim.x) {
    double sum = 0;
    for (int h = 0; h < r.group_size; ++h) {
      const float* p = r.scores + ((token * r.num_kv_heads + g) * r.group_size + h) * r.max_rows;
      for (int w = 0; w <= r.page_rows + e - 2; ++w) {
        const int i = r.page_rows * j - r.offset + w;
        const int weight = min(min(w + 1, r.page_rows), min(e, r.page_rows + e - 1 - w));
        if (i >= 0 && i < num_rows) sum += double(weight) * p[i];
      }
    }
    r.importance[(token * r.num_kv_heads + g) * r.max_pages + j] = static_cast<float>(sum);
  }
}

}  // namespace nsa
