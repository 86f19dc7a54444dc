#include "kernels/cpu/attend.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attend.cc"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
#include "kernels/cpu/online_softmax-inl.h"
#include "kernels/cpu/score_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

// out[i][c] = out[i][c] * rescale[i] + sum over lanes of weights[i][lane] * v[lane][c], lanes in
// ascending order, for kNum queries and two vectors of columns.
template <int kNum, class D, typename T>
HWY_INLINE void AddValueColumns(D d, const float* HWY_RESTRICT weights, const float* rescale,
                                const T* const* v, int64_t begin, int64_t end, int64_t c,
                                float* const* out) {
  using V = hn::Vec<D>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sum0[kNum], sum1[kNum];
  for (int i = 0; i < kNum; ++i) {
    const V factor = hn::Set(d, rescale[i]);
    sum0[i] = hn::Mul(hn::LoadU(d, out[i] + c), factor);
    sum1[i] = hn::Mul(hn::LoadU(d, out[i] + c + lanes), factor);
  }
  for (int64_t lane = begin; lane < end; ++lane) {
    const V v0 = LoadF32(d, v[lane] + c), v1 = LoadF32(d, v[lane] + c + lanes);
    for (int i = 0; i < kNum; ++i) {
      const V weight = hn::Set(d, weights[i * kTileRows + lane]);
      sum0[i] = hn::MulAdd(weight, v0, sum0[i]);
      sum1[i] = hn::MulAdd(weight, v1, sum1[i]);
    }
  }
  for (int i = 0; i < kNum; ++i) {
    hn::StoreU(sum0[i], d, out[i] + c);
    hn::StoreU(sum1[i], d, out[i] + c + lanes);
  }
}

// The same for one column, for what two vectors do not divide.
template <int kNum, typename T>
HWY_INLINE void AddValueColumn(const float* HWY_RESTRICT weights, const float* rescale,
                               const T* const* v, int64_t begin, int64_t end, int64_t c,
                               float* const* out) {
  const hn::CappedTag<float, 1> d;
  for (int i = 0; i < kNum; ++i) {
    auto sum = hn::Mul(hn::LoadU(d, out[i] + c), hn::Set(d, rescale[i]));
    for (int64_t lane = begin; lane < end; ++lane) {
      const auto value = hn::Set(d, static_cast<float>(v[lane][c]));
      sum = hn::MulAdd(hn::Set(d, weights[i * kTileRows + lane]), value, sum);
    }
    hn::StoreU(sum, d, out[i] + c);
  }
}

template <int kNum, typename T>
HWY_NOINLINE void AddValues(const float* HWY_RESTRICT weights, const float* rescale,
                            const T* const* v, int64_t begin, int64_t end, int64_t d_v,
                            float* const* out) {
  const hn::CappedTag<float, 16> d;
  const int64_t step = 2 * static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + step <= d_v; c += step) {
    AddValueColumns<kNum>(d, weights, rescale, v, begin, end, c, out);
  }
  for (; c < d_v; ++c) AddValueColumn<kNum>(weights, rescale, v, begin, end, c, out);
}

// Up to kTileQueries queries, largest pieces first.
template <typename T>
HWY_INLINE void AddValuesOf(int num, const float* weights, const float* rescale, const T* const* v,
                            int64_t begin, int64_t end, int64_t d_v, float* const* out) {
  const auto add = [&]<int kNum>() HWY_ATTR {
    for (; num >= kNum; num -= kNum, weights += kNum * kTileRows, rescale += kNum, out += kNum) {
      AddValues<kNum>(weights, rescale, v, begin, end, d_v, out);
    }
  };
  add.template operator()<kTileQueries>();
  if constexpr (kTileQueries > 4) add.template operator()<4>();
  add.template operator()<2>();
  add.template operator()<1>();
}

// One tile of rows with its keys transposed and its values addressed.
template <typename T>
struct Tile {
  int64_t first_row;  // a multiple of kTileRows
  KeyTile keys;
  const T* values[kTileRows];
};

// Lanes of the tile that a query sees.
struct LaneRange {
  int64_t begin, end;
  bool operator==(const LaneRange&) const = default;
};
inline LaneRange SeenLanes(const Query& query, int64_t first_row) {
  return {std::clamp<int64_t>(query.begin - first_row, 0, kTileRows),
          std::clamp<int64_t>(query.end - first_row, 0, kTileRows)};
}

// Queries [0, num), num <= kTileQueries, against one tile.
template <typename T>
HWY_INLINE void AttendTile(const Tile<T>& tile, const Query* queries, int num, int64_t d_k,
                           int64_t d_v, float scale_log2, OnlineSoftmax* softmax) {
  alignas(64) float weights[kTileQueries * kTileRows];
  const float* q[kTileQueries];
  float* out[kTileQueries];
  float rescale[kTileQueries];
  LaneRange seen[kTileQueries];
  bool any = false;
  for (int i = 0; i < num; ++i) {
    q[i] = queries[i].q;
    out[i] = queries[i].out;
    seen[i] = SeenLanes(queries[i], tile.first_row);
    any = any || seen[i].begin < seen[i].end;
  }
  if (!any) return;
  ScoreTile(q, num, tile.keys, d_k, weights);
  for (int i = 0; i < num; ++i) {
    if (seen[i].begin >= seen[i].end) continue;
    rescale[i] = softmax[i].Update(weights + i * kTileRows, scale_log2, seen[i].begin, seen[i].end);
  }
  // A value that a query does not see is not even multiplied by 0: it may be NaN.
  for (int first = 0, last = 0; first < num; first = last) {
    while (last < num && seen[last] == seen[first]) ++last;
    if (seen[first].begin >= seen[first].end) continue;
    AddValuesOf(last - first, weights + first * kTileRows, rescale + first, tile.values,
                seen[first].begin, seen[first].end, d_v, out + first);
  }
}

template <typename T>
HWY_INLINE void AttendRows(const KvRows& rows, std::span<const Query> queries,
                           float softmax_scale) {
  const int64_t d_k = rows.kv->d_k(), d_v = rows.kv->d_v();
  const T* k = rows.kv->k.data<T>();
  const T* v = rows.kv->v.data<T>();
  const float scale_log2 = softmax_scale * kLog2E;
  const auto num_queries = static_cast<int64_t>(queries.size());
  OnlineSoftmax softmax[kMaxTaskQueries];
  const SeenRows all = AllSeenRows(queries);
  for (const Query& query : queries) std::fill(query.out, query.out + d_v, 0.0F);
  Tile<T> tile;
  for (tile.first_row = all.begin / kTileRows * kTileRows; tile.first_row < all.end;
       tile.first_row += kTileRows) {
    const TileRows tile_rows(rows, tile.first_row, all.begin, all.end);
    TransposeKeys(k, tile_rows, d_k, tile.keys);
    for (int64_t lane = 0; lane < kTileRows; ++lane) {
      tile.values[lane] = v + tile_rows.RowOrFirst(lane) * d_v;
    }
    for (int64_t i = 0; i < num_queries; i += kTileQueries) {
      const auto num = static_cast<int>(std::min<int64_t>(kTileQueries, num_queries - i));
      AttendTile(tile, queries.data() + i, num, d_k, d_v, scale_log2, softmax + i);
    }
  }
  for (int64_t i = 0; i < num_queries; ++i) {
    const float sum = softmax[i].Sum();
    const float inverse = sum > 0 ? 1.0F / sum : sum;
    for (int64_t c = 0; c < d_v; ++c) queries[i].out[c] *= inverse;
    *queries[i].lse = softmax[i].LogSumExp(sum);
  }
}

void AttendF32(const KvRows& rows, std::span<const Query> queries, float softmax_scale) {
  AttendRows<float>(rows, queries, softmax_scale);
}
void AttendBF16(const KvRows& rows, std::span<const Query> queries, float softmax_scale) {
  AttendRows<BFloat16>(rows, queries, softmax_scale);
}

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

SeenRows AllSeenRows(std::span<const Query> queries) {
  SeenRows all;
  for (const Query& query : queries) {
    if (query.begin >= query.end) continue;
    all = all.begin >= all.end
              ? SeenRows{query.begin, query.end}
              : SeenRows{std::min(all.begin, query.begin), std::max(all.end, query.end)};
  }
  return all;
}

HWY_EXPORT(AttendF32);
HWY_EXPORT(AttendBF16);

void Attend(const KvRows& rows, std::span<const Query> queries, float softmax_scale) {
  NSA_CHECK_LE(queries.size(), static_cast<size_t>(kMaxTaskQueries));
  if (rows.kv->k.dtype() == DType::kF32) {
    HWY_DYNAMIC_DISPATCH(AttendF32)(rows, queries, softmax_scale);
  } else {
    HWY_DYNAMIC_DISPATCH(AttendBF16)(rows, queries, softmax_scale);
  }
}

}  // namespace nsa::cpu
#endif
