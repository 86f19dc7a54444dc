#include "kernels/cpu/attend.h"

#include <cmath>
#include <limits>

namespace nsa::cpu {
namespace {

template <typename T>
void AttendOne(const KvRows& rows, const Query& query, float scale) {
  const int64_t d_k = rows.kv->d_k(), d_v = rows.kv->d_v();
  const T* k = rows.kv->k.data<T>();
  const T* v = rows.kv->v.data<T>();
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0;
  for (int64_t c = 0; c < d_v; ++c) query.out[c] = 0;
  for (int64_t r = query.begin; r < query.end; ++r) {
    const int64_t row = rows.CacheRow(r);
    float score = 0;
    for (int64_t c = 0; c < d_k; ++c) score += query.q[c] * static_cast<float>(k[row * d_k + c]);
    score *= scale;
    const float new_max = std::max(max, score);
    const float old_scale = std::exp(max - new_max);
    const float p = std::exp(score - new_max);
    sum = sum * old_scale + p;
    max = new_max;
    for (int64_t c = 0; c < d_v; ++c) {
      query.out[c] = query.out[c] * old_scale + p * static_cast<float>(v[row * d_v + c]);
    }
  }
  if (sum > 0) {
    for (int64_t c = 0; c < d_v; ++c) query.out[c] /= sum;
  }
  *query.lse = max + std::log(sum);
}

}  // namespace

void Attend(const KvRows& rows, std::span<const Query> queries, float softmax_scale) {
  DispatchFloat(rows.kv->k.dtype(), [&]<typename T>() {
    for (const Query& query : queries) AttendOne<T>(rows, query, softmax_scale);
  });
}

}  // namespace nsa::cpu
