#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/rope_rotation.h"

namespace nsa::cpu {
namespace {

constexpr int64_t kNumBranches = 3;

template <typename T>
void StoreRow(const float* from, int64_t d, T* to) {
  for (int64_t c = 0; c < d; ++c) to[c] = static_cast<T>(from[c]);
}

// The K and V rows of one token, from its row of projections.
template <typename T>
void StoreStream(const KvStream& stream, const float* packed, int64_t sequence, int64_t position,
                 const RopeRotation& rotation) {
  const PagedKv& kv = stream.kv;
  const int64_t d_k = kv.d_k(), d_v = kv.d_v();
  NSA_CHECK(sequence >= 0 && sequence < kv.table.dim(0))
      << "sequence " << sequence << " of " << kv.table.dim(0);
  float rotated[kMaxHeadDim];
  for (int64_t head = 0; head < kv.num_kv_heads(); ++head) {
    const KvRows rows{
        .kv = &kv, .table = kv.table.data<int32_t>() + sequence * kv.table.dim(1), .kv_head = head};
    const int64_t to = rows.CacheRow(position);
    const float* k = packed + stream.k_column + head * d_k;
    if (stream.rotate_k) rotation.Rotate(k, rotated);
    StoreRow(stream.rotate_k ? rotated : k, d_k, kv.k.data<T>() + to * d_k);
    StoreRow(packed + stream.v_column + head * d_v, d_v, kv.v.data<T>() + to * d_v);
  }
}

template <typename T>
void StoreToken(const StoreProjectionsArgs& args, int64_t token) {
  const int64_t num_heads = args.q.dim(1), d_k = args.q.dim(2);
  const int64_t position = args.tokens.position.data<int32_t>()[token];
  const float* packed = args.packed.data<float>() + token * args.packed.dim(1);
  float* q = args.q.data<float>() + token * num_heads * d_k;
  float* gates = args.gate_logits.empty()
                     ? nullptr
                     : args.gate_logits.data<float>() + token * num_heads * kNumBranches;
  if (position < 0) {
    std::fill_n(q, num_heads * d_k, 0.0F);
    if (gates != nullptr) std::fill_n(gates, num_heads * kNumBranches, 0.0F);
    return;
  }
  const RopeRotation rotation(position, args.inv_freq.data<float>(), d_k / 2);
  for (int64_t head = 0; head < num_heads; ++head) {
    rotation.Rotate(packed + args.q_column + head * d_k, q + head * d_k);
  }
  if (gates != nullptr) {
    std::copy_n(packed + args.gates_column, num_heads * kNumBranches, gates);
  }
  const int64_t sequence = args.tokens.sequence.data<int32_t>()[token];
  for (int64_t i = 0; i < args.num_streams; ++i) {
    StoreStream<T>(args.streams[i], packed, sequence, position, rotation);
  }
}

}  // namespace

void StoreProjections(const StoreProjectionsArgs& args, const Stream& stream) {
  constexpr int64_t kMinTokens = 4;
  DispatchFloat(args.streams[0].kv.k.dtype(), [&]<typename T>() {
    ParallelForRows(stream, args.tokens.num_tokens(), kMinTokens, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) StoreToken<T>(args, token);
    });
  });
}

}  // namespace nsa::cpu
