#include "kernels/cpu/importance.h"

#include <algorithm>
#include <cmath>

namespace nsa::cpu {
namespace {

template <typename T>
float RowProbability(const KvRows& rows, const GroupQueries& queries, int64_t r) {
  const int64_t d_k = rows.kv->d_k();
  const T* k = rows.kv->k.data<T>() + rows.CacheRow(r) * d_k;
  float sum = 0;
  for (int64_t h = 0; h < queries.num_heads; ++h) {
    float score = 0;
    for (int64_t c = 0; c < d_k; ++c) score += queries.q[h * d_k + c] * static_cast<float>(k[c]);
    sum += std::exp(score * queries.softmax_scale - queries.lse[h]);
  }
  return sum;
}

}  // namespace

void BlockImportance(const NsaShape& shape, const KvRows& rows, const GroupQueries& queries,
                     int64_t first_block, int64_t end_block, float* importance) {
  const int64_t a = shape.rows_per_page(), offset = shape.row_offset();
  std::fill(importance, importance + (end_block - first_block), 0.0F);
  // Block j gathers paged rows a*j + k, k in [0, a+e-2]; the first e-1 paged rows do not exist.
  const int64_t begin = std::max(offset, a * first_block);
  const int64_t end = std::min(offset + queries.num_rows, a * end_block + offset);
  DispatchFloat(rows.kv->k.dtype(), [&]<typename T>() {
    for (int64_t r = begin; r < end; ++r) {
      const float p = RowProbability<T>(rows, queries, r);
      for (int64_t j = r / a, k = r % a; j >= first_block && k < a + offset; --j, k += a) {
        if (j < end_block) {
          importance[j - first_block] += static_cast<float>(shape.RowWeight(k)) * p;
        }
      }
    }
  });
}

}  // namespace nsa::cpu
