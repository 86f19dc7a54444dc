#include "kernels/backends.h"
#include "kernels/checks.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/phi.h"
#include "kernels/cpu/rope_rotation.h"

namespace nsa::cpu {
namespace {

enum class Side : uint8_t { kKey, kValue };

KvRows SequenceRows(const PagedKv& kv, int64_t sequence, int64_t kv_head) {
  NSA_CHECK(sequence >= 0 && sequence < kv.table.dim(0))
      << "sequence " << sequence << " of " << kv.table.dim(0);
  return {.kv = &kv,
          .table = kv.table.data<int32_t>() + sequence * kv.table.dim(1),
          .kv_head = kv_head};
}

// The raw rows of tokens [first, first + span_tokens) plus the position encoding, as fp32.
template <typename T>
void LoadSpan(const KvRows& raw, const TensorView& cache, int64_t first, int64_t span_tokens,
              const TensorView& position, float* span) {
  const int64_t d = cache.dim(3);
  const float* p =
      position.empty() ? nullptr : position.data<float>() + raw.kv_head * span_tokens * d;
  for (int64_t i = 0; i < span_tokens; ++i) {
    const T* from = cache.data<T>() + raw.CacheRow(first + i) * d;
    for (int64_t c = 0; c < d; ++c) {
      span[i * d + c] = static_cast<float>(from[c]) + (p == nullptr ? 0.0F : p[i * d + c]);
    }
  }
}

template <typename T>
void StoreRow(const float* row, const TensorView& cache, int64_t cache_row) {
  const int64_t d = cache.dim(3);
  T* to = cache.data<T>() + cache_row * d;
  for (int64_t c = 0; c < d; ++c) to[c] = static_cast<T>(row[c]);
}

// The K or V row whose span ends at `position`.
void CompressSpan(const CompressArgs& args, int64_t sequence, int64_t position, int64_t kv_head,
                  Side side) {
  const bool is_key = side == Side::kKey;
  const int64_t row_idx = args.shape.NumRows(position + 1) - 1;
  const int64_t first_token = row_idx * args.shape.span_stride;
  const PhiWeights& weights = is_key ? args.phi_k : args.phi_v;
  const TensorView& raw_cache = is_key ? args.raw.k : args.raw.v;
  const TensorView& row_cache = is_key ? args.rows.k : args.rows.v;
  float span[kMaxSpanElements];
  float row[kMaxHeadDim];
  DispatchFloat(raw_cache.dtype(), [&]<typename T>() {
    LoadSpan<T>(SequenceRows(args.raw, sequence, kv_head), raw_cache, first_token,
                args.shape.span_tokens, weights.position, span);
  });
  ApplyPhi({.kind = args.phi,
            .weights = weights,
            .kv_head = kv_head,
            .span_tokens = args.shape.span_tokens,
            .d = raw_cache.dim(3),
            .span = span,
            .row = row});
  if (is_key && args.rope == CmpRope::kAfter) {
    RopeRotation(first_token, args.inv_freq.data<float>(), raw_cache.dim(3) / 2).Rotate(row, row);
  }
  const int64_t to =
      SequenceRows(args.rows, sequence, kv_head).CacheRow(row_idx + args.shape.row_offset());
  DispatchFloat(row_cache.dtype(), [&]<typename T>() { StoreRow<T>(row, row_cache, to); });
}

}  // namespace

int64_t CompressRowsScratchBytes(const CompressExtent& /*extent*/, const Stream& /*stream*/) {
  return 0;
}

void CompressRows(const CompressArgs& args, const Stream& stream) {
  const int32_t* positions = args.tokens.position.data<int32_t>();
  const int32_t* sequences = args.tokens.sequence.data<int32_t>();
  const int64_t tasks_per_token = args.raw.num_kv_heads() * 2;
  ParallelFor(stream, args.tokens.num_tokens() * tasks_per_token, [&](int64_t item, int) {
    const int64_t token = item / tasks_per_token;
    if (positions[token] < 0 || !args.shape.CompletesSpan(positions[token])) return;
    const int64_t kv_head = item % tasks_per_token / 2;
    const Side side = item % 2 == 0 ? Side::kKey : Side::kValue;
    CompressSpan(args, sequences[token], positions[token], kv_head, side);
  });
}

}  // namespace nsa::cpu
