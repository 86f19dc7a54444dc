// Scores of query heads against a tile of cached keys; included once per SIMD target.
//
// Keys of a tile are transposed once into fp32, [d_k][kTileRows], and used by all queries of the
// task. A score is then one chain of multiply-adds over d_k in ascending order, whatever the vector
// width and whichever queries share the tile.

#if defined(NSA_KERNELS_CPU_SCORE_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_KERNELS_CPU_SCORE_TILE_INL_H_
#undef NSA_KERNELS_CPU_SCORE_TILE_INL_H_
#else
#define NSA_KERNELS_CPU_SCORE_TILE_INL_H_
#endif

#include "kernels/checks.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

// Keys [d_k][kTileRows] of one tile in fp32.
struct alignas(64) KeyTile {
  float keys[kMaxHeadDim * kTileRows];
};

// The tile's keys; lanes without a row repeat the first row, so that they are finite.
template <typename T>
HWY_INLINE void TransposeKeys(const T* k, const TileRows& rows, int64_t d_k, KeyTile& tile) {
  for (int64_t lane = 0; lane < kTileRows; lane += 4) {
    const T* keys[4];
    for (int64_t i = 0; i < 4; ++i) keys[i] = k + rows.RowOrFirst(lane + i) * d_k;
    TransposeFourRows<kTileRows>(keys, d_k, tile.keys + lane);
  }
}

// scores[i][lane] = queries[i] . key of the lane, for kNum queries.
template <int kNum>
HWY_INLINE void ScoreQueries(const float* const* queries, const KeyTile& tile, int64_t d_k,
                             float* HWY_RESTRICT scores) {
  const hn::CappedTag<float, kTileRows / 2> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  using V = hn::Vec<decltype(d)>;
  for (int64_t lane = 0; lane < kTileRows; lane += 2 * lanes) {
    V sum0[kNum], sum1[kNum];
    for (int i = 0; i < kNum; ++i) sum0[i] = sum1[i] = hn::Zero(d);
    const float* HWY_RESTRICT keys = tile.keys + lane;
    for (int64_t c = 0; c < d_k; ++c, keys += kTileRows) {
      const V k0 = hn::Load(d, keys), k1 = hn::Load(d, keys + lanes);
      for (int i = 0; i < kNum; ++i) {
        const V q = hn::Set(d, queries[i][c]);
        sum0[i] = hn::MulAdd(q, k0, sum0[i]);
        sum1[i] = hn::MulAdd(q, k1, sum1[i]);
      }
    }
    for (int i = 0; i < kNum; ++i) {
      hn::Store(sum0[i], d, scores + i * kTileRows + lane);
      hn::Store(sum1[i], d, scores + i * kTileRows + lane + lanes);
    }
  }
}

// Up to kTileQueries queries.
HWY_INLINE void ScoreTile(const float* const* queries, int num_queries, const KeyTile& tile,
                          int64_t d_k, float* scores) {
  static_assert(kTileQueries <= 8);
  switch (num_queries) {
    case 1:
      return ScoreQueries<1>(queries, tile, d_k, scores);
    case 2:
      return ScoreQueries<2>(queries, tile, d_k, scores);
    case 3:
      return ScoreQueries<3>(queries, tile, d_k, scores);
    case 4:
      return ScoreQueries<4>(queries, tile, d_k, scores);
    case 5:
      return ScoreQueries<5>(queries, tile, d_k, scores);
    case 6:
      return ScoreQueries<6>(queries, tile, d_k, scores);
    case 7:
      return ScoreQueries<7>(queries, tile, d_k, scores);
    default:
      return ScoreQueries<8>(queries, tile, d_k, scores);
  }
}

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
