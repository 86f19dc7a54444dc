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

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

// Keys [d_k][kTileRows] of one tile in fp32.
struct alignas(64) KeyTile {
  float keys[kMaxHeadDim * kTileRows];
};

#if HWY_TARGET == HWY_SCALAR
// Without vectors there is nothing to gain: TransposeKeys' plain loop does all elements.
template <typename T>
HWY_INLINE int64_t TransposeFourKeys(const T* const*, int64_t, float*) {
  return 0;
}
#else
// Transposes 4x4 elements of 32 bits: out[i] = element i of a, b, c, d.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void Transpose4(D d, V& a, V& b, V& c, V& e) {
  const V ab_lo = hn::InterleaveLower(d, a, b), ab_hi = hn::InterleaveUpper(d, a, b);
  const V ce_lo = hn::InterleaveLower(d, c, e), ce_hi = hn::InterleaveUpper(d, c, e);
  a = hn::ConcatLowerLower(d, ce_lo, ab_lo);
  b = hn::ConcatUpperUpper(d, ce_lo, ab_lo);
  c = hn::ConcatLowerLower(d, ce_hi, ab_hi);
  e = hn::ConcatUpperUpper(d, ce_hi, ab_hi);
}

// Four keys to lanes [0, 4) of `to`. Returns how many of the d_k elements were done.
HWY_INLINE int64_t TransposeFourKeys(const float* const* keys, int64_t d_k, float* to) {
  const hn::Full128<float> d;
  int64_t c = 0;
  for (; c + 4 <= d_k; c += 4) {
    auto k0 = hn::LoadU(d, keys[0] + c), k1 = hn::LoadU(d, keys[1] + c);
    auto k2 = hn::LoadU(d, keys[2] + c), k3 = hn::LoadU(d, keys[3] + c);
    Transpose4(d, k0, k1, k2, k3);
    hn::Store(k0, d, to + c * kTileRows);
    hn::Store(k1, d, to + (c + 1) * kTileRows);
    hn::Store(k2, d, to + (c + 2) * kTileRows);
    hn::Store(k3, d, to + (c + 3) * kTileRows);
  }
  return c;
}

// The same with pairs of bf16 as the transposed elements, which are then split into fp32.
HWY_INLINE int64_t TransposeFourKeys(const BFloat16* const* keys, int64_t d_k, float* to) {
  const hn::Full128<uint32_t> d;
  const hn::Full128<uint16_t> d16;
  const hn::Full128<float> df;
  const auto load = [&](const BFloat16* from) HWY_ATTR {
    return hn::BitCast(d, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
  };
  const auto store = [&](hn::Vec<hn::Full128<uint32_t>> pairs, float* at) HWY_ATTR {
    const auto high_half = hn::Set(d, 0xffff0000U);
    hn::Store(hn::BitCast(df, hn::ShiftLeft<16>(pairs)), df, at);
    hn::Store(hn::BitCast(df, hn::And(pairs, high_half)), df, at + kTileRows);
  };
  int64_t c = 0;
  for (; c + 8 <= d_k; c += 8) {
    auto k0 = load(keys[0] + c), k1 = load(keys[1] + c);
    auto k2 = load(keys[2] + c), k3 = load(keys[3] + c);
    Transpose4(d, k0, k1, k2, k3);
    store(k0, to + c * kTileRows);
    store(k1, to + (c + 2) * kTileRows);
    store(k2, to + (c + 4) * kTileRows);
    store(k3, to + (c + 6) * kTileRows);
  }
  return c;
}

#endif

// The tile's keys; lanes without a row repeat the first row, so that they are finite.
template <typename T>
HWY_INLINE void TransposeKeys(const T* k, const TileRows& rows, int64_t d_k, KeyTile& tile) {
  for (int64_t lane = 0; lane < kTileRows; lane += 4) {
    const T* keys[4];
    for (int64_t i = 0; i < 4; ++i) keys[i] = k + rows.RowOrFirst(lane + i) * d_k;
    const int64_t done = TransposeFourKeys(keys, d_k, tile.keys + lane);
    for (int64_t c = done; c < d_k; ++c) {
      for (int64_t i = 0; i < 4; ++i) {
        tile.keys[c * kTileRows + lane + i] = static_cast<float>(keys[i][c]);
      }
    }
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
