#include "kernels/cpu/importance.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/importance.cc"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
#include "kernels/cpu/score_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

// sums[lane] += exp(scale * scores - lse), one query at a time. The scores are those of
// CompressedAttention bit by bit, so each head's probabilities sum to 1.
HWY_INLINE void AddProbabilities(const float* scores, const GroupQueries& queries, int64_t head,
                                 float* sums) {
  const hn::CappedTag<float, kTileRows / 2> d;
  const auto scale = hn::Set(d, queries.softmax_scale);
  const auto lse = hn::Set(d, queries.lse[head]);
  for (int64_t lane = 0; lane < kTileRows; lane += static_cast<int64_t>(hn::Lanes(d))) {
    const auto log_p = hn::MulSub(hn::Load(d, scores + lane), scale, lse);
    const auto p = Exp2(d, hn::Mul(log_p, hn::Set(d, kLog2E)));
    hn::Store(hn::Add(hn::Load(d, sums + lane), p), d, sums + lane);
  }
}

// sums[lane] = sum over the group's heads, ascending, of the probability of the lane's row.
template <typename T>
HWY_INLINE void SumProbabilities(const KvRows& rows, const GroupQueries& queries,
                                 const TileRows& tile_rows, float* sums) {
  const int64_t d_k = rows.kv->d_k();
  KeyTile tile;
  TransposeKeys(rows.kv->k.data<T>(), tile_rows, d_k, tile);
  std::fill_n(sums, kTileRows, 0.0F);
  alignas(64) float scores[kTileQueries * kTileRows];
  for (int64_t first = 0; first < queries.num_heads; first += kTileQueries) {
    const auto num = static_cast<int>(std::min<int64_t>(kTileQueries, queries.num_heads - first));
    const float* q[kTileQueries];
    for (int i = 0; i < num; ++i) q[i] = queries.q + (first + i) * d_k;
    ScoreTile(q, num, tile, d_k, scores);
    for (int i = 0; i < num; ++i) {
      AddProbabilities(scores + i * kTileRows, queries, first + i, sums);
    }
  }
}

template <typename T>
HWY_INLINE void Importance(const ImportanceArgs& args) {
  const int64_t a = args.shape.rows_per_page(), offset = args.shape.row_offset();
  // Block j gathers paged rows a*j + k, k in [0, a+e-2]; the first e-1 paged rows do not exist.
  const int64_t begin = std::max(offset, a * args.first_block);
  const int64_t end = std::min(offset + args.queries.num_rows, a * args.end_block + offset);
  alignas(64) float sums[kTileRows];
  for (int64_t tile = begin / kTileRows * kTileRows; tile < end; tile += kTileRows) {
    const TileRows tile_rows(args.rows, tile, begin, end);
    SumProbabilities<T>(args.rows, args.queries, tile_rows, sums);
    for (int64_t r = std::max(begin, tile); r < std::min(end, tile + kTileRows); ++r) {
      for (int64_t j = r / a, k = r % a; j >= args.first_block && k < a + offset; --j, k += a) {
        if (j >= args.end_block) continue;
        args.importance[j - args.first_block] +=
            static_cast<float>(args.shape.RowWeight(k)) * sums[r - tile];
      }
    }
  }
}

void ImportanceF32(const ImportanceArgs& args) { Importance<float>(args); }
void ImportanceBF16(const ImportanceArgs& args) { Importance<BFloat16>(args); }

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

HWY_EXPORT(ImportanceF32);
HWY_EXPORT(ImportanceBF16);

void BlockImportance(const ImportanceArgs& args) {
  std::fill_n(args.importance, args.end_block - args.first_block, 0.0F);
  if (args.rows.kv->k.dtype() == DType::kF32) {
    HWY_DYNAMIC_DISPATCH(ImportanceF32)(args);
  } else {
    HWY_DYNAMIC_DISPATCH(ImportanceBF16)(args);
  }
}

}  // namespace nsa::cpu
#endif
